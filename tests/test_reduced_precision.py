"""int8 and bf16 exports: what is in them, what they cost, and what runs them."""

from __future__ import annotations

import json
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from agsr.backend import Batch
from agsr.catalog import find_checkpoint, find_onnx
from agsr.checkpoint import Checkpoint, load_checkpoint
from agsr.cli import main
from agsr.data import Pair
from agsr.engines.openvino_backend import OpenVinoBackend
from agsr.engines.ort_backend import OrtBackend
from agsr.engines.select import open_backend
from agsr.engines.torch_backend import TorchBackend
from agsr.engines.trt_api import load_tensorrt
from agsr.engines.trt_builder import BuildOptions, build_engine
from agsr.errors import BackendError, BuildError, ExportError, ModelError
from agsr.export import ExportReport, export_onnx
from agsr.export.fidelity import measure
from agsr.export.quantize import read_calibration
from agsr.export.verify import SHAPES, sample_batch
from agsr.resize import downscale

ADA = BuildOptions(targets=("sm89",))


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
    path = tmp_path_factory.mktemp("int8") / "psnr-1-int8.onnx"
    return export_onnx(shipped, path, steps=1, precision="int8", calibrate=photos)


@pytest.fixture(scope="module")
def bf16(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    path = tmp_path_factory.mktemp("bf16") / "tiny-2-bf16.onnx"
    return export_onnx(checkpoint, path, steps=2, precision="bf16")


def test_int8_is_in_every_convolution_but_the_ends(int8: ExportReport) -> None:
    graph = onnx.load(int8.path).graph
    made_by = {output: node.op_type for node in graph.node for output in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    inputs = [[made_by.get(name) for name in node.input[:2]] for node in convolutions]
    assert all(types == ["DequantizeLinear"] * 2 for types in inputs[1:-1])
    assert "DequantizeLinear" not in (*inputs[0], *inputs[-1])


def test_int8_is_symmetric_and_per_channel(int8: ExportReport) -> None:
    graph = onnx.load(int8.path).graph
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    pairs = [n for n in graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    zeros = [constants[node.input[2]] for node in pairs]
    assert all(zero.dtype == np.int8 and not zero.any() for zero in zeros)
    weights = [n for n in pairs if n.input[0] in constants]
    assert all(constants[n.input[1]].shape == constants[n.input[0]].shape[:1] for n in weights)


def test_int8_says_what_it_costs_on_photographs_it_was_not_calibrated_on(
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


def test_onnx_runtime_runs_int8_at_any_size(int8: ExportReport, shipped: Checkpoint) -> None:
    with (
        open_backend("ort", int8.path, precision="int8") as backend,
        open_backend("torch", "psnr", steps=1) as exact,
    ):
        assert backend.info.precision == "int8"
        assert backend.info.weights_hash == shipped.weights_hash
        for shape in ((1, 1, 1), (3, 9, 50), (1, 64, 33)):
            lr = sample_batch(*shape)
            difference = np.abs(backend.upscale(lr) - exact.upscale(lr))
            assert 0 < difference.mean() < 0.01


def test_tensorrt_builds_int8_and_counts_its_layers(int8: ExportReport) -> None:
    content = Path(int8.path).read_bytes()
    _, report = build_engine(load_tensorrt(), content, "int8", ADA)
    convolutions = int8.operators["Conv"]
    assert report.products() == {"INT8": convolutions - 2, "FLOAT": 2}


def test_a_file_that_claims_int8_but_holds_none_is_not_built() -> None:
    model = onnx.load(find_onnx("psnr", 1))
    for entry in model.metadata_props:
        if entry.key == "agsr.precision":
            entry.value = "int8"
    with pytest.raises(BuildError, match=r"says int8, but of its convolution layers \d+ in FLOAT"):
        build_engine(load_tensorrt(), model.SerializeToString(), "liar", ADA)


@pytest.mark.skipif(find_spec("openvino") is None, reason="no wheel for this platform")
def test_openvino_is_not_trusted_with_int8_but_runs_bf16(
    int8: ExportReport, bf16: ExportReport, checkpoint_file: Path
) -> None:
    with pytest.raises(BackendError, match=r"does not run int8: .* use --backend ort"):
        OpenVinoBackend(Path(int8.path))
    lr = sample_batch(1, 31, 45)
    exact = TorchBackend(checkpoint_file, steps=2).upscale(lr)
    with OpenVinoBackend(Path(bf16.path), precision="bf16") as backend:
        assert np.abs(backend.upscale(lr) - exact).max() < 0.05


def test_too_large_a_loss_is_refused_and_nothing_is_written(
    shipped: Checkpoint, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agsr.export.fidelity.LARGEST_LOSS", -1.0)
    with pytest.raises(ExportError, match=r"int8 loses .* with --calibrate, or use fp16"):
        export_onnx(shipped, tmp_path / "m.onnx", steps=1, precision="int8", calibrate=photos)
    assert not list(tmp_path.iterdir())


def test_loss_is_measured_against_the_original(photo: NDArray[np.uint8]) -> None:
    def repeat(lr: Batch) -> Batch:
        return lr.repeat(4, axis=2).repeat(4, axis=3)

    pairs = [Pair(hr=photo, lr=downscale(photo))]
    same = measure(repeat, repeat, pairs, "here", "fp16")
    assert (same.loss, same.images) == (0, 1)
    assert same.psnr == same.psnr_fp32 > 15
    with pytest.raises(ExportError, match=r"fp16 loses \d+\.\d+ dB .* use bf16 or fp32"):
        measure(repeat, lambda lr: repeat(1 - lr), pairs, "here", "fp16")


@pytest.mark.parametrize(
    ("count", "message"), [(0, "nothing to calibrate on"), (1, "two or more; name a folder")]
)
def test_too_few_photographs_are_explained(tmp_path: Path, count: int, message: str) -> None:
    for index in range(count):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(ExportError, match=message):
        read_calibration(tmp_path)


def test_the_command_says_how_to_calibrate(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AGSR_DATA", raising=False)
    run = CliRunner()
    missing = run.invoke(main, ["export", "--precision", "int8"])
    assert missing.exit_code == 1
    assert "name a folder of photographs with --calibrate" in missing.stderr
    foreign = run.invoke(main, ["export", "--calibrate", str(photos)])
    assert foreign.exit_code == 2
    assert "--calibrate is for --precision int8" in foreign.stderr
    arguments = ["export", "-w", "psnr", "-s", "1", "--precision", "int8"]
    arguments += ["--calibrate", str(photos), "-o", str(tmp_path / "m.onnx")]
    shown = run.invoke(main, arguments)
    assert shown.exit_code == 0, shown.output
    assert "on 2 photographs of" in shown.stdout
    assert "Collecting" not in shown.output  # ONNX Runtime's quantizer prints


def test_bf16_is_inside_only(bf16: ExportReport) -> None:
    model = onnx.load(bf16.path)
    assert bf16.opset == 22
    ports = [p.type.tensor_type.elem_type for p in (*model.graph.input, *model.graph.output)]
    assert ports == [onnx.TensorProto.FLOAT] * 2
    types = Counter(t.data_type for t in model.graph.initializer)
    assert types.keys() <= {onnx.TensorProto.BFLOAT16, onnx.TensorProto.INT64}
    assert bf16.operators["Cast"] == 2


def test_bf16_is_run_at_every_shape_and_its_cost_told(bf16: ExportReport) -> None:
    assert tuple(row.shape for row in bf16.parity) == SHAPES
    assert 1e-4 < max(row.largest for row in bf16.parity) < 0.05
    assert bf16.fidelity is not None
    assert abs(bf16.fidelity.loss) < 0.1


def test_tensorrt_builds_bf16(bf16: ExportReport) -> None:
    _, report = build_engine(load_tensorrt(), Path(bf16.path).read_bytes(), "bf16", ADA)
    assert report.products() == {"BF16": bf16.operators["Conv"]}


def test_bf16_needs_an_opset_that_knows_it(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="opset is 20; expected 22 to 24 for bf16"):
        export_onnx(checkpoint, tmp_path / "m.onnx", steps=1, precision="bf16", opset=20)


def test_what_cannot_run_bf16_says_what_can(bf16: ExportReport) -> None:
    with pytest.raises(ModelError, match="runs on --backend openvino or trt"):
        OrtBackend(Path(bf16.path))


def test_a_named_file_must_have_the_precision_asked_for(int8: ExportReport) -> None:
    for precision in ("fp32", "bf16"):
        with pytest.raises(BackendError, match=rf"runs int8 graphs in int8, not in {precision}"):
            open_backend("ort", int8.path, precision=precision)
    with pytest.raises(ModelError, match=r"--weights psnr --steps 1 --precision int8"):
        open_backend("ort", "psnr", steps=1, precision="int8")
    with open_backend("ort", "psnr", steps=1, precision="fp16") as backend:
        assert backend.info.precision == "fp16"
