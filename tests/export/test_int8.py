"""int8 exports: what is in them, what they cost, and what runs them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from conftest import INT8_BY_OPENVINO, Processor, small_baseline
from numpy.typing import NDArray

from agsr.backend import Batch
from agsr.cli import main
from agsr.cli.output.tables import show_export
from agsr.contract import ModelMetadata
from agsr.engines.open import open_backend
from agsr.engines.runtimes import onnxruntime_backend
from agsr.engines.runtimes.openvino_backend import OpenVinoBackend
from agsr.engines.tensorrt.api import load_tensorrt
from agsr.engines.tensorrt.builder import build_engine
from agsr.engines.tensorrt.options import BuildOptions
from agsr.engines.tensorrt.signed_int8 import as_signed
from agsr.errors import BackendError, BuildError, ExportError, ModelError
from agsr.export import ExportReport, export_onnx
from agsr.export.calibration import magnitudes, read_calibration
from agsr.export.fidelity import Fidelity
from agsr.export.verify import SHAPES, ParityRow, sample_batch
from agsr.model.checkpoint import Checkpoint, load_checkpoint
from agsr.pretrained import find_checkpoint, find_onnx

pytestmark = pytest.mark.processor

ADA = BuildOptions(targets=("sm89",))
EXACT = {
    "network.pixels.weight": 1,
    "network.shallow.weight": 1,
    "network.step.attend.products.weight": 2,
    "network.step.attend.places.weight": 2,
    "network.upsample.weight": 1,
    "network.repeat.weight": 1,
}
"""Convolutions of two steps that stay float32, by their weights."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, photo: NDArray[np.uint8]) -> Path:
    """A folder of four different photographs: the corners of one."""
    folder = tmp_path_factory.mktemp("photos")
    for index, (top, left) in enumerate(((0, 0), (0, 32), (32, 0), (32, 32))):
        corner = photo[top : top + 96, left : left + 96, ::-1]
        cv2.imwrite(str(folder / f"{index}.png"), corner)
    return folder


@pytest.fixture(scope="module")
def shipped() -> Checkpoint:
    return load_checkpoint(find_checkpoint("psnr"))


@pytest.fixture(scope="module")
def int8(
    shipped: Checkpoint, photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> ExportReport:
    path = tmp_path_factory.mktemp("int8") / "psnr-2-int8.onnx"
    return export_onnx(shipped, path, steps=2, precision="int8", calibrate=photos)


@pytest.fixture(scope="module")
def graph(int8: ExportReport) -> onnx.GraphProto:
    return onnx.load(int8.path).graph


def _constants(graph: onnx.GraphProto) -> dict[str, NDArray[np.generic]]:
    return {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}


def _makers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    return {output: node for node in graph.node for output in node.output}


def _run(content: bytes, lr: Batch) -> Batch:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    sr: Batch = session.run(None, {"lr": lr})[0]
    return sr


def test_int8_is_in_all_convolutions_but_those_that_it_costs_most(graph: onnx.GraphProto) -> None:
    makers = _makers(graph)
    exact: Counter[str] = Counter()
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        if node.input[1] not in makers:
            exact[node.input[1]] += 1
            assert makers[node.input[0]].op_type != "DequantizeLinear"
            continue
        assert makers[node.input[1]].op_type == "DequantizeLinear"
        read = makers[node.input[0]]
        parts = [makers[p] for p in read.input] if read.op_type == "Concat" else [read]
        assert {part.op_type for part in parts} == {"DequantizeLinear"}
    assert exact == EXACT


def test_values_are_bytes_around_128_and_weights_are_signed(graph: onnx.GraphProto) -> None:
    constants = _constants(graph)
    weights, values = [], []
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            (weights if node.input[0] in constants else values).append(node)
    zeros = [constants[node.input[2]] for node in values]
    assert all(zero.dtype == np.uint8 and zero == 128 for zero in zeros)
    assert all(len(node.input) == 2 for node in weights)  # so zero is 0
    for node in weights:
        levels, scale = (constants[name] for name in node.input)
        assert levels.dtype == np.int8
        assert scale.shape == levels.shape[:1]
        assert (np.abs(levels.astype(int)).reshape(len(scale), -1).max(axis=1) == 127).all()


def test_what_is_joined_has_one_scale(graph: onnx.GraphProto) -> None:
    makers = _makers(graph)
    joins = [n for n in graph.node if n.op_type == "Concat" and n.input[0].endswith("_rounded")]
    scales = [{makers[part].input[1] for part in join.input} for join in joins]
    constants = _constants(graph)
    assert len(scales) == 6  # three blocks, two steps
    assert all(len(names) == 2 for names in scales)
    assert all(len({constants[name].item() for name in names}) == 1 for names in scales)


def test_joins_of_joins_have_one_scale_too(photos: Path, tmp_path: Path) -> None:
    from generators import CONFIGS, random_generator

    config = CONFIGS["odd widths"]  # three dense layers
    generator = random_generator(config)
    for parameter in generator.parameters():
        parameter.mul_(0.3)
    checkpoint = Checkpoint(config=config, weights=generator.state_dict())
    export_onnx(
        checkpoint, tmp_path / "a.onnx", steps=1, precision="int8", calibrate=photos, tolerance=9
    )
    graph = onnx.load(tmp_path / "a.onnx").graph
    makers, constants = _makers(graph), _constants(graph)

    def scales(name: str) -> set[float]:
        node = makers[name]
        if node.op_type == "Concat":
            return {scale for part in node.input for scale in scales(part)}
        return {constants[node.input[1]].item()}

    joins = [n for n in graph.node if n.op_type == "Concat" and n.input[0].endswith("_rounded")]
    nested = [
        n
        for n in graph.node
        if n.op_type == "Concat" and n.input[0] in {j.output[0] for j in joins}
    ]
    assert (len(joins), len(nested)) == (2, 2)  # two blocks
    assert all(len(scales(node.output[0])) == 1 for node in nested)


def test_nothing_else_reads_what_is_rounded(graph: onnx.GraphProto) -> None:
    """OpenVINO rounds in the pass of the operator before only if so; see docs/performance.md."""
    readers = Counter(name for node in graph.node for name in node.input)
    rounding = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert len(rounding) > 20
    assert all(readers[node.input[0]] == 1 for node in rounding)
    idle = [n for n in graph.node if n.op_type == "LeakyRelu" and n.attribute[0].f == 1]
    assert idle
    assert all(readers[node.input[0]] > 1 for node in idle)


def test_magnitudes_are_those_of_nearly_all_values(photos: Path) -> None:
    model = onnx.load(find_onnx("psnr", 1))
    pairs = read_calibration(photos).measured
    name = model.graph.node[0].output[0]  # lr less 0.5
    found = magnitudes(model, [name], pairs)[name]
    values = [np.abs(pair.lr.astype(np.float32) / 255 - 0.5) for pair in pairs]
    assert found == pytest.approx(max(np.percentile(v, 99.999) for v in values), abs=1e-6)


def test_layers_with_only_zeros_have_a_scale(photos: Path, tmp_path: Path) -> None:
    from conftest import tiny_checkpoint

    dead = tiny_checkpoint()
    for name, value in dead.weights.items():
        if name.startswith("mapping.0.narrow"):
            value.zero_()
    export_onnx(dead, tmp_path / "a.onnx", steps=1, precision="int8", calibrate=photos, tolerance=9)
    constants = _constants(onnx.load(tmp_path / "a.onnx").graph)
    scales = [value for name, value in constants.items() if name.endswith("_scale")]
    assert all((scale > 1e-30).all() for scale in scales)


@pytest.mark.parametrize("name", ["srcnn", "srgan"])
def test_other_networks_keep_their_ends_exact(name: str, photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    export_onnx(small_baseline(name), path, precision="int8", calibrate=photos, tolerance=9)
    convolutions = [node for node in onnx.load(path).graph.node if node.op_type == "Conv"]
    rounded = [node.input[1].endswith("_rounded") for node in convolutions]
    assert rounded == [False, *[True] * (len(rounded) - 2), False]


@pytest.mark.parametrize("backend", ["ort", pytest.param("openvino", marks=INT8_BY_OPENVINO)])
def test_it_runs_at_any_size(int8: ExportReport, shipped: Checkpoint, backend: str) -> None:
    with (
        open_backend(backend, int8.path, precision="int8") as rounded,
        open_backend("torch", "psnr", steps=2) as exact,
    ):
        assert rounded.info.precision == "int8"
        assert rounded.info.weights_hash == shipped.weights_hash
        for shape in ((1, 1, 1), (3, 9, 50), (1, 64, 33)):
            lr = sample_batch(*shape)
            difference = np.abs(rounded.upscale(lr) - exact.upscale(lr))
            assert 0 < difference.mean() < 0.006
            assert difference.max() < 0.1


@INT8_BY_OPENVINO
def test_openvino_rounds_as_onnx_runtime_does(int8: ExportReport) -> None:
    """With signed values its errors were several times as large."""
    with (
        open_backend("openvino", int8.path) as here,
        open_backend("ort", int8.path) as there,
        open_backend("ort", "psnr", steps=2) as exact,
    ):
        lr = sample_batch(1, 96, 96)
        expected = exact.upscale(lr)
        error, usual = (np.abs(b.upscale(lr) - expected).mean() for b in (here, there))
        assert error < 1.3 * usual


@pytest.mark.parametrize(
    ("feature", "advice"),
    [("avx512_vnni", "--backend openvino is faster"), ("avx2", "use --precision fp32")],
)
def test_onnx_runtimes_cpu_reports_that_it_is_slow(
    int8: ExportReport,
    play_processor: Processor,
    caplog: pytest.LogCaptureFixture,
    feature: str,
    advice: str,
) -> None:
    play_processor(feature)
    with open_backend("ort", int8.path):
        assert f"computes int8 slower than fp32; {advice}" in caplog.text


def test_onnx_runtimes_tensorrt_is_not_given_unsigned_values() -> None:
    with pytest.raises(BackendError, match="for int8 on TensorRT use --backend trt"):
        onnxruntime_backend._check_int8(Path("a.onnx"), "int8", "tensorrt-rtx")
    onnxruntime_backend._check_int8(Path("a.onnx"), "fp32", "tensorrt-rtx")


def test_a_processor_that_would_overflow_is_not_asked(
    int8: ExportReport, play_processor: Processor
) -> None:
    play_processor("avx2")
    with pytest.raises(BackendError, match=r"neither VNNI nor AMX; use --precision fp32"):
        OpenVinoBackend(Path(int8.path))


def test_tensorrt_gets_signed_values_and_nothing_idle(int8: ExportReport) -> None:
    content = Path(int8.path).read_bytes()
    signed = as_signed(content, "a")
    graph = onnx.load_model_from_string(signed).graph
    constants = _constants(graph)
    pairs = [
        n
        for n in graph.node
        if n.op_type.endswith("quantizeLinear") or n.op_type == "QuantizeLinear"
    ]
    zeros = [constants[n.input[2]] for n in pairs if len(n.input) > 2]
    assert zeros
    assert all(zero.dtype == np.int8 and zero == 0 for zero in zeros)
    assert all(n.attribute[0].f < 1 for n in graph.node if n.op_type == "LeakyRelu")
    lr = sample_batch(1, 24, 32)
    np.testing.assert_allclose(_run(signed, lr), _run(content, lr), atol=1e-6)
    assert as_signed(signed, "a") == signed
    model = onnx.load_model_from_string(content)
    for constant in model.graph.initializer:
        if constant.name == "zero_point":
            constant.CopyFrom(onnx.numpy_helper.from_array(np.array(0, np.uint8), "zero_point"))
    with pytest.raises(BuildError, match="a: int8 values that are not around 128"):
        as_signed(model.SerializeToString(), "a")
    with pytest.raises(BuildError, match="a: not an ONNX file"):
        as_signed(b"nonsense", "a")


def test_the_loss_of_int8_is_measured_on_held_out_photographs(
    int8: ExportReport, photos: Path
) -> None:
    assert int8.metadata.precision == "int8"
    assert tuple(row.shape for row in int8.parity) == SHAPES
    assert int8.fidelity is not None
    assert (int8.fidelity.source, int8.fidelity.images) == (str(photos), 2)
    assert 0 < int8.fidelity.loss < 0.1
    assert json.loads(int8.to_json())["fidelity"]["loss"] == int8.fidelity.loss


def test_calibration_and_measurement_share_no_photograph(photos: Path) -> None:
    found = read_calibration(photos)
    shown = [{p.hr.tobytes() for p in half} for half in (found.measured, found.held_out)]
    assert [len(half) for half in shown] == [2, 2]
    assert not shown[0] & shown[1]


def test_large_photographs_are_calibrated_on_by_their_middle(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        image = np.zeros((600, 40, 3), np.uint8)
        image[44:556] = 255
        cv2.imwrite(str(tmp_path / name), image)
    (pair,) = read_calibration(tmp_path).measured
    assert pair.hr.shape == (512, 40, 3)
    assert pair.lr.shape == (128, 10, 3)
    assert pair.hr.min() == 255


def test_tensorrt_builds_int8_and_counts_its_layers(int8: ExportReport) -> None:
    content = Path(int8.path).read_bytes()
    _, report = build_engine(load_tensorrt(), content, "int8", ADA)
    convolutions = int8.operators["Conv"]
    exact = sum(EXACT.values())
    assert report.products() == {"INT8": convolutions - exact, "FLOAT": exact}


def test_a_file_that_claims_int8_but_holds_none_is_not_built() -> None:
    model = onnx.load(find_onnx("psnr", 1))
    for entry in model.metadata_props:
        if entry.key == "agsr.precision":
            entry.value = "int8"
    with pytest.raises(
        BuildError, match=r"declares int8, but of its convolution layers \d+ in FLOAT"
    ):
        build_engine(load_tensorrt(), model.SerializeToString(), "liar", ADA)


@pytest.mark.parametrize(
    ("count", "message"), [(0, "nothing to calibrate on"), (1, "two or more; name a folder")]
)
def test_too_few_photographs_are_explained(tmp_path: Path, count: int, message: str) -> None:
    for index in range(count):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(ExportError, match=message):
        read_calibration(tmp_path)


def test_the_commands_error_has_the_calibration_option(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AGSR_DATA", raising=False)
    run = CliRunner()
    missing = run.invoke(main, ["export", "--precision", "int8"])
    assert missing.exit_code == 2
    assert "--calibrate FOLDER" in missing.stderr
    foreign = run.invoke(main, ["export", "--calibrate", str(photos)])
    assert foreign.exit_code == 2
    assert "--calibrate is for --precision int8" in foreign.stderr
    arguments = ["export", "-w", "psnr", "-s", "1", "--precision", "int8"]
    arguments += ["--calibrate", str(photos), "-o", str(tmp_path / "m.onnx")]
    shown = run.invoke(main, arguments)
    assert shown.exit_code == 0, shown.output
    assert "on 2 photographs of" in shown.stdout
    assert "Collecting" not in shown.output  # ONNX Runtime's quantizer prints


def test_too_large_a_loss_is_refused_and_nothing_is_written(
    shipped: Checkpoint, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agsr.export.fidelity.MAX_LOSS", -1.0)
    with pytest.raises(ExportError, match=r"int8 loses .* with --calibrate, or use fp16"):
        export_onnx(shipped, tmp_path / "m.onnx", steps=1, precision="int8", calibrate=photos)
    assert not list(tmp_path.iterdir())


def test_a_named_file_must_have_the_precision_asked_for(int8: ExportReport) -> None:
    for precision in ("fp32", "bf16"):
        with pytest.raises(BackendError, match=rf"runs int8 graphs in int8, not in {precision}"):
            open_backend("ort", int8.path, precision=precision)
    with pytest.raises(ModelError, match=r"--weights psnr --steps 9 --precision int8"):
        open_backend("ort", "psnr", steps=9, precision="int8")
    with open_backend("ort", "psnr", steps=1, precision="fp16") as backend:
        assert backend.info.precision == "fp16"


def test_torchs_error_has_the_int8_export_command(checkpoint_file: Path) -> None:
    with pytest.raises(BackendError, match=r"agsr export -w .* --precision int8 --calibrate"):
        open_backend("torch", str(checkpoint_file), precision="int8")


def test_without_photographs_the_message_is_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AGSR_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(main, ["export", "--precision", "int8"])
    assert (found.exit_code, list(tmp_path.iterdir())) == (2, [])
    assert "agsr export --precision int8 --calibrate FOLDER" in found.stderr
    assert "agsr infer --precision int8" in found.stderr


def test_few_photographs_are_warned_of(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    read_calibration(photos)
    assert "int8 is calibrated on only 4 photographs; use twenty or more" in caplog.text


def test_the_report_of_an_export_names_the_loss(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = ExportReport(
        path="x.onnx",
        size=1,
        metadata=ModelMetadata(
            steps=1,
            precision="int8",
            receptive_radius=1,
            config="{}",
            weights_hash="",
            version="",
        ),
        opset=20,
        operators={},
        tolerance=0.4,
        parity=(ParityRow(shape=(1, 1, 1), largest=0.1, mean=0.01),),
        fidelity=Fidelity(source="folder", images=9, psnr_fp32=31.5, psnr=31.48, loss=0.02),
    )
    show_export(report)
    shown = capsys.readouterr().out
    assert "loses 0.020 dB of PSNR-Y to torch fp32 (31.500 to 31.480) on 9 photographs" in shown
    assert "single values differ by up to 26, on average by 2.55" in shown
    assert "0.4" not in shown
