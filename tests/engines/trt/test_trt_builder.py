"""Real engines, built by TensorRT-RTX for a GPU that need not be there."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import click
import onnx
import pytest
from click.testing import CliRunner
from fake_gpu import FakeCuda
from fake_trt import METADATA
from onnx import TensorProto, helper

from agsr.cli import main
from agsr.cli.build import Target
from agsr.contract import ModelMetadata
from agsr.engines.tensorrt import engine_file
from agsr.engines.tensorrt.api import TensorRt, load_engine, load_tensorrt
from agsr.engines.tensorrt.builder import build_engine, configure
from agsr.engines.tensorrt.options import BuildOptions, BuildReport, Profile
from agsr.errors import (
    BackendError,
    BuildError,
    BuildRequestError,
    MissingDependencyError,
    ModelError,
)

ADA = BuildOptions(targets=("sm89",))


@pytest.fixture(scope="module")
def trt() -> TensorRt:
    return load_tensorrt()


@pytest.fixture(scope="module")
def half(onnx_file: Callable[..., Path]) -> Path:
    return onnx_file(2, "fp16")


def test_an_fp16_file_becomes_an_fp16_engine(trt: TensorRt, half: Path) -> None:
    engine, report = build_engine(trt, half.read_bytes(), "half", ADA)
    assert engine[:4] == b"vtrt"
    assert report.size == len(engine)
    assert report.products().keys() == {"HALF"}
    assert report.layers["CONVOLUTION"]["HALF"] > 10
    assert (report.metadata.steps, report.metadata.precision) == (2, "fp16")


def test_an_fp32_file_becomes_an_fp32_engine(
    trt: TensorRt, onnx_file: Callable[[int], Path]
) -> None:
    _, report = build_engine(trt, onnx_file(1).read_bytes(), "full", ADA)
    assert report.products().keys() == {"FLOAT"}
    assert report.tf32 is False
    assert report.to_dict()["tf32"] is False


@pytest.mark.parametrize(("precision", "tf32"), [("fp32", False), ("int8", True)])
def test_fp32_is_exact_while_int8_may_use_tf32(trt: TensorRt, precision: str, tf32: bool) -> None:
    builder = trt.module.Builder(trt.messages())
    config = configure(trt, builder, ADA, precision)
    assert config.get_flag(trt.module.BuilderFlag.TF32) is tf32


def test_without_a_target_the_engine_is_for_this_gpu(trt: TensorRt) -> None:
    builder, kinds = trt.module.Builder(trt.messages()), trt.module.ComputeCapability
    for targets, expected in (
        ((), [kinds.CURRENT]),
        (("sm75",), [kinds.SM75]),
        (("sm89", "sm120"), [kinds.SM89, kinds.SM120]),
    ):
        config = configure(trt, builder, BuildOptions(targets=targets), "fp16")
        count = config.num_compute_capabilities
        assert [config.get_compute_capability(index) for index in range(count)] == expected


def test_errors_name_their_own_cause_each_time(trt: TensorRt) -> None:
    """TensorRT uses the first logger of a process for all its objects."""
    assert load_tensorrt().messages() is trt.messages()
    for content in (b"garbage", b"more garbage", b"x" * 1000):
        before = trt.messages().count
        with pytest.raises(BackendError) as caught:
            load_engine(trt, content, host_code=False)
        assert trt.messages().count > before
        assert str(caught.value) not in ("", "no reason given")
    assert trt.messages().reason(trt.messages().count) == "no reason given"


def test_an_error_of_this_thread_comes_before_those_of_others(trt: TensorRt) -> None:
    messages, error = trt.messages(), trt.module.ILogger.ERROR
    started = messages.count
    messages.log(error, "mine,\n  on two lines")
    other = threading.Thread(target=messages.log, args=(error, "another's"))
    other.start()
    other.join()
    messages.log(trt.module.ILogger.WARNING, "a warning")
    assert messages.reason(started) == "mine, on two lines"
    assert messages.reason(started + 1) == "another's"


def test_progress_rises_to_the_end(trt: TensorRt, half: Path) -> None:
    shares: list[float] = []
    build_engine(trt, half.read_bytes(), "half", ADA, lambda _, share: not shares.append(share))
    assert len(shares) > 20
    assert all(0 <= share <= 1 for share in shares)
    assert max(shares) > 0.8  # its last phases tell no steps


def test_a_build_can_be_cancelled(trt: TensorRt, half: Path) -> None:
    with pytest.raises(BuildError, match="cancelled; nothing was written"):
        build_engine(trt, half.read_bytes(), "half", ADA, lambda *_: False)


def test_several_profiles_and_sizes(trt: TensorRt, half: Path) -> None:
    small, large = Profile((1, 8, 8), (1, 32, 32), (4, 64, 64)), Profile((1, 90, 160))
    options = BuildOptions(profiles=(small, large), targets=("sm89", "sm120"), level=1)
    engine, report = build_engine(trt, half.read_bytes(), "half", options)
    assert len(engine) == report.size
    assert report.options == options


def test_a_file_that_lies_about_its_precision_is_refused(
    trt: TensorRt, onnx_file: Callable[[int], Path]
) -> None:
    model = onnx.load(onnx_file(1))
    for entry in model.metadata_props:
        if entry.key == "agsr.precision":
            entry.value = "fp16"
    with pytest.raises(
        BuildError, match=r"declares fp16, but of its convolution layers \d+ in FLOAT"
    ):
        build_engine(trt, model.SerializeToString(), "liar", ADA)


def test_what_cannot_be_parsed_is_named(trt: TensorRt) -> None:
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["b", 3, "h", "w"]) for n in "xy"]
    node = helper.make_node("NoSuchOp", ["x"], ["y"], name="strange")
    model = helper.make_model(helper.make_graph([node], "g", ports[:1], ports[1:]))
    metadata = ModelMetadata(
        steps=1, precision="fp32", receptive_radius=1, config="", weights_hash="", version=""
    )
    helper.set_model_props(model, metadata.to_properties())
    with pytest.raises(BuildError, match=r"can't parse it: node strange \(NoSuchOp\): "):
        build_engine(trt, model.SerializeToString(), "m", ADA)


def test_foreign_files_are_refused(trt: TensorRt) -> None:
    with pytest.raises(ModelError, match="not an ONNX file"):
        build_engine(trt, b"\xffgarbage", "g", ADA)
    with pytest.raises(ModelError, match="g: not an ONNX file but an empty file: it has no op"):
        build_engine(trt, onnx.ModelProto().SerializeToString(), "g", ADA)


def test_options_of_the_other_tensorrt_are_rejected(trt: TensorRt, half: Path) -> None:
    content = half.read_bytes()
    with pytest.raises(BuildError, match=r"no target sm90; known: .*sm89"):
        build_engine(trt, content, "half", BuildOptions(targets=("sm90",)))
    with pytest.raises(BuildRequestError, match="--hardware-compatible is TensorRT's"):
        build_engine(trt, content, "half", BuildOptions(hardware_compatible=True))
    with pytest.raises(BuildRequestError, match="--version-compatible is TensorRT's"):
        build_engine(trt, content, "half", BuildOptions(version_compatible=True))
    with pytest.raises(BuildRequestError, match="times nothing while building"):
        build_engine(trt, content, "half", ADA, timing_cache=Path("times"))


def test_profiles_are_ordered() -> None:
    with pytest.raises(BuildError, match="expected min ≤ opt ≤ max"):
        Profile((1, 64, 64), (1, 32, 32), (1, 128, 128))


def test_without_tensorrt_both_ways_to_get_it_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agsr.engines.tensorrt.api.find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match=r"'agsr\[rtx\]'.*'agsr\[gpu\]'"):
        load_tensorrt()


def test_the_command_builds_and_reports(half: Path, tmp_path: Path) -> None:
    output = tmp_path / "made.engine"
    arguments = ["build", str(half), "--target", "sm89", "-o", str(output), "--max", "96x64"]
    arguments += ["--min", "8x8", "--opt", "48x32", "--batch", "2", "--workspace", "64"]
    shown = CliRunner().invoke(main, arguments)
    assert shown.exit_code == 0, shown.output
    assert "in HALF" in shown.stdout
    assert "1x8x8 ≤ 1x32x48 ≤ 2x64x96" in shown.stdout
    report = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    assert report["size"] == output.stat().st_size
    assert report["options"]["workspace"] == 64 << 20
    assert report["layers"]["CONVOLUTION"].keys() == {"HALF"}


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--max", "64"], 2, "'64' is not WIDTHxHEIGHT"),
        (["--opt", "540x960"], 2, "sizes are WIDTHxHEIGHT: 960x540?"),
        (["--max", "64x64", "--max", "99x99", "--min", "8x8"], 2, "given equally often"),
        (["--max", "8x8", "--target", "sm89"], 2, "expected min ≤ opt ≤ max"),
        (["--target", "sm1"], 2, "'sm1' is no target: expected sm89 or a GPU like rtx4090"),
        (["--target", "sm99"], 2, "no target sm99; known: "),
        (["-o", "photo.png"], 2, "-o photo.png does not end in .engine"),
        (["--device", "cuda:1", "--target", "sm89"], 2, "--device and --target contradict one"),
        (["--device", "cpu"], 2, "backend 'trt' has no --device cpu; known: cuda"),
        (["--device", ""], 2, "the device is empty; expected one like cpu or cuda:1"),
    ],
)
def test_mistakes_leave_no_file(
    half: Path, tmp_path: Path, options: list[str], status: int, message: str
) -> None:
    result = CliRunner().invoke(
        main, ["build", str(half), "-o", str(tmp_path / "x.engine"), *options]
    )
    assert result.exit_code == status, result.output
    assert message in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("options", "used"), [([], []), (["--device", "cuda:1"], [1])])
def test_an_engine_is_built_while_the_gpu_that_was_named_is_current(
    half: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    used: list[int],
) -> None:
    opened: list[int] = []
    cuda = FakeCuda()

    def open_fake(index: int) -> FakeCuda:
        opened.append(index)
        return cuda

    def build(*_: object) -> tuple[bytes, BuildReport]:
        assert cuda.depth == len(used)
        report = BuildReport(metadata=METADATA, flavour="tensorrt", version="11", layers={}, size=6)
        return b"engine", report

    monkeypatch.setattr(engine_file, "load_tensorrt", lambda: None)
    monkeypatch.setattr(engine_file, "check_driver", lambda: None)
    monkeypatch.setattr(engine_file, "open_cuda", open_fake)
    monkeypatch.setattr(engine_file, "build_engine", build)
    path = tmp_path / "x.engine"
    done = CliRunner().invoke(main, ["build", str(half), "-o", str(path), *options])
    assert done.exit_code == 0, done.output
    assert path.read_bytes() == b"engine"
    assert (opened, cuda.depth) == (used, 0)


@pytest.mark.parametrize(
    ("word", "target"),
    [
        ("sm89", "sm89"),
        ("SM_120", "sm120"),
        ("8.6", "sm86"),
        ("rtx4090", "sm89"),
        ("NVIDIA GeForce RTX 4060 Ti", "sm89"),
        ("RTX 5090", "sm120"),
        ("rtx-3060", "sm86"),
        ("GTX 1650", "sm75"),
        ("RTX 2080 Super", "sm75"),
        ("L40S", "sm89"),
        ("H100 SXM", "sm90"),
        ("A6000", "sm86"),
        ("rtx2050", "sm86"),
        ("NVIDIA GeForce RTX 2050", "sm86"),
        ("Tesla T4", "sm75"),
        ("NVIDIA A10G", "sm86"),
        ("NVIDIA RTX A1000 Laptop GPU", "sm86"),
        ("RTX A2000 12GB", "sm86"),
        ("RTX A500", "sm86"),
        ("A100-SXM4-80GB", "sm80"),
        ("RTX 4500 Ada", "sm89"),
        ("RTX 6000 Ada", "sm89"),
        ("RTX PRO 6000 Blackwell", "sm120"),
    ],
)
def test_targets_are_known_by_their_gpus(word: str, target: str) -> None:
    assert Target().convert(word, None, None) == target


def test_a_gpu_that_is_not_known_is_refused() -> None:
    with pytest.raises(click.BadParameter, match="'voodoo2' is no target"):
        Target().convert("voodoo2", None, None)
