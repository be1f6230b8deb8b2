from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner
from foreign_graphs import repeating
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from agsr.cli import main
from agsr.contract import ModelMetadata, SizeRule, Tiling
from agsr.engines.foreign.hints import Hints
from agsr.engines.onnx_file.inspect import read_properties
from agsr.errors import ExportError
from agsr.export.served_network import exported_network, tile_side
from agsr.export.triton import ServedNetwork, Serving, Signature, Tensor, write_repository
from agsr.system import atomic_file


def _config(folder: Path) -> model_config_pb2.ModelConfig:
    """The configuration as Triton's own schema reads it; unknown or misspelt fields are errors."""
    text = (folder / "config.pbtxt").read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def _parameters(config: model_config_pb2.ModelConfig) -> dict[str, str]:
    return {key: value.string_value for key, value in config.parameters.items()}


def test_the_repository_is_what_triton_expects(
    tmp_path: Path, onnx_file: Callable[[int], Path]
) -> None:
    (folder,) = write_repository(
        tmp_path / "models", "tiny", onnx_file(1), serving=Serving(max_batch=4)
    )
    assert folder == tmp_path / "models" / "tiny"
    assert (folder / "1" / "model.onnx").read_bytes() == onnx_file(1).read_bytes()
    config = _config(folder)
    assert (config.name, config.platform, config.max_batch_size) == ("tiny", "onnxruntime_onnx", 4)
    for port, name in ((config.input[0], "lr"), (config.output[0], "sr")):
        assert (port.name, list(port.dims)) == (name, [3, -1, -1])
        assert port.data_type == model_config_pb2.TYPE_FP32
    assert list(config.dynamic_batching.preferred_batch_size) == [4]
    (group,) = config.instance_group
    assert (group.count, group.kind) == (1, model_config_pb2.ModelInstanceGroup.KIND_AUTO)


def test_engines_are_served_as_plans(tmp_path: Path) -> None:
    engine = tmp_path / "x.engine"
    engine.write_bytes(b"engine")
    serving = Serving(runtime="tensorrt")
    (folder,) = write_repository(tmp_path / "models", "x", engine, serving=serving)
    assert (folder / "1" / "model.plan").read_bytes() == b"engine"
    assert _config(folder).platform == "tensorrt_plan"


def test_what_is_there_is_not_replaced(tmp_path: Path, onnx_file: Callable[[int], Path]) -> None:
    write_repository(tmp_path, "tiny", onnx_file(1))
    with pytest.raises(ExportError, match="exists; remove it"):
        write_repository(tmp_path, "tiny", onnx_file(1))
    with pytest.raises(ExportError, match="can't name a Triton model"):
        write_repository(tmp_path, "../tiny", onnx_file(1))


def test_export_writes_a_repository(
    tmp_path: Path, checkpoint_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["export", "-w", str(checkpoint_file), "-s", "1", "--triton", "models"]
    result = CliRunner().invoke(main, [*arguments, "--triton-tile", "40"])
    assert result.exit_code == 0, result.output
    assert result.stdout.count("tritonserver --model-repository models") == 2
    whole, tiles = _config(Path("models/tiny-1")), _config(Path("models/tiny-1-tile40"))
    assert (whole.name, tiles.name) == ("tiny-1", "tiny-1-tile40")
    assert list(whole.input[0].dims) == list(whole.output[0].dims) == [3, -1, -1]
    assert (list(tiles.input[0].dims), list(tiles.output[0].dims)) == ([3, 40, 40], [3, 160, 160])
    for config in (whole, tiles):
        assert config.HasField("dynamic_batching")
        assert (config.platform, config.max_batch_size) == ("onnxruntime_onnx", 8)
    written = read_properties(Path("tiny-1.onnx"))
    own = {key: value for key, value in written.items() if key.startswith("agsr.")}
    assert _parameters(whole) == own
    assert _parameters(tiles) == own | {
        "agsr.size_fixed": "40x40",
        "agsr.whole_model": "tiny-1",
    }
    assert ModelMetadata.from_properties(_parameters(tiles), "x").sizes.fixed == (40, 40)


@pytest.mark.parametrize("there", ["models/tiny-1", "models"])
def test_an_export_whose_repository_cannot_be_written_ends_before_the_work(
    tmp_path: Path, checkpoint_file: Path, monkeypatch: pytest.MonkeyPatch, there: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("agsr.export.export_onnx", lambda *_, **__: pytest.fail("it was exported"))
    if there == "models":
        Path(there).touch()
    else:
        Path(there).mkdir(parents=True)
    arguments = ["export", "-w", str(checkpoint_file), "-s", "1", "--triton", "models"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: models/tiny-1")
    assert list(tmp_path.iterdir()) == [tmp_path / "models"]


def test_a_disk_that_fills_up_leaves_nothing_of_a_repository(
    tmp_path: Path, onnx_file: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(ExportError, match="tiny: can't be written: No space left"):
        write_repository(tmp_path / "models", "tiny", onnx_file(1))
    assert list((tmp_path / "models").iterdir()) == []
    monkeypatch.undo()
    write_repository(tmp_path / "models", "tiny", onnx_file(1))
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["tiny"]


def test_what_a_killed_process_left_of_a_repository_is_removed(
    tmp_path: Path, onnx_file: Callable[[int], Path]
) -> None:
    left = tmp_path / f".agsr-{'0' * 16}.folder"
    (left / "1").mkdir(parents=True)
    atomic_file._remove_abandoned.cache_clear()
    write_repository(tmp_path, "tiny", onnx_file(1))
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_the_python_backend_gets_its_model_beside_the_file(
    tmp_path: Path, onnx_file: Callable[[int], Path]
) -> None:
    serving = Serving(runtime="python")
    (folder,) = write_repository(tmp_path, "tiny", onnx_file(1), serving=serving)
    assert {path.name for path in (folder / "1").iterdir()} == {"model.onnx", "model.py"}
    assert (_config(folder).backend, _config(folder).platform) == ("python", "")


def test_parameters_may_hold_any_text(tmp_path: Path, onnx_file: Callable[[int], Path]) -> None:
    given = {"agsr.a": 'C:\\x "y"\n\r\0 é', "agsr.b": ""}
    network = ServedNetwork(parameters=given)
    (folder,) = write_repository(tmp_path, "tiny", onnx_file(1), network)
    assert _parameters(_config(folder)) == given


@pytest.mark.parametrize("size", [(-1, -1), (16, 24)])
def test_an_export_for_one_picture_a_call_gets_no_batches(
    size: tuple[int, int], tmp_path: Path, onnx_file: Callable[[int], Path]
) -> None:
    """Triton refuses a model whose graph has fewer free axes than its configuration."""
    sizes = SizeRule() if size[0] < 0 else SizeRule(fixed=size)
    model = onnx.load(onnx_file(1))
    properties = {entry.key: entry.value for entry in model.metadata_props}
    properties |= {f"agsr.{key}": value for key, value in sizes.to_properties().items()}
    onnx.helper.set_model_props(model, properties)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    path = tmp_path / "one.onnx"
    onnx.save(model, path)
    for folder in write_repository(tmp_path, "one", path, exported_network(path, 8)):
        config, tiled = _config(folder), folder.name != "one"
        sides = [8, 8] if tiled else list(size)
        large = [side * 4 if side > 0 else -1 for side in sides]
        assert (config.max_batch_size, config.HasField("dynamic_batching")) == (0, False)
        assert list(config.input[0].dims) == [1, 3, *sides]
        assert list(config.output[0].dims) == [1, 3, *large]


def test_names_of_tensors_may_be_any_text(tmp_path: Path, onnx_file: Callable[[int], Path]) -> None:
    name = 'x" }\n] max_batch_size: 9 # \\'
    signature = Signature(Tensor(name), Tensor(name))
    (folder,) = write_repository(tmp_path, "a", onnx_file(1), ServedNetwork(signature=signature))
    config = _config(folder)
    assert (config.input[0].name, config.output[0].name) == (name, name)
    assert config.max_batch_size == 8


def test_no_model_is_written_if_one_of_them_exists(
    tmp_path: Path, onnx_file: Callable[[int], Path]
) -> None:
    (tmp_path / "tiny-tile8").mkdir()
    with pytest.raises(ExportError, match="tiny-tile8 exists"):
        write_repository(tmp_path, "tiny", onnx_file(1), ServedNetwork(tile=8))
    assert not (tmp_path / "tiny").exists()


@pytest.mark.parametrize("option", ["--triton-tile=8", "--triton-backend=python"])
def test_options_of_a_repository_need_one(checkpoint_file: Path, option: str) -> None:
    result = CliRunner().invoke(main, ["export", "-w", str(checkpoint_file), option])
    assert result.exit_code == 2
    assert "is for --triton FOLDER, which is missing" in result.stderr


@pytest.mark.parametrize(
    ("rule", "tiling", "side"),
    [
        (SizeRule(), "supported", 40),
        (SizeRule(multiple=16), "supported", 48),
        (SizeRule(minimum=64), "discouraged", 64),
        (SizeRule(fixed=(32, 32)), "supported", None),
        (SizeRule(), "internal", None),
    ],
)
def test_tiles_have_a_size_that_the_network_accepts(
    rule: SizeRule, tiling: Tiling, side: int | None
) -> None:
    assert tile_side(40, rule, tiling) == side
    assert tile_side(0, rule, tiling) is None


def test_another_projects_file_is_described_by_hints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    repeating(Path("other.onnx"), layout="NHWC", kind="uint8", scale=2)
    arguments = ["export", "-w", "other.onnx", "--triton", "models", "--triton-tile", "16"]
    result = CliRunner().invoke(main, [*arguments, "--hints", "order=bgr"])
    assert result.exit_code == 0, result.output
    whole, tiles = _config(Path("models/other")), _config(Path("models/other-tile16"))
    assert (list(tiles.input[0].dims), list(tiles.output[0].dims)) == ([16, 16, 3], [32, 32, 3])
    hints = Hints.parse(_parameters(whole)["agsr.hints"])
    assert (hints.layout, hints.input_peak, hints.order) == ("NHWC", 255, "bgr")
    assert _parameters(tiles) == _parameters(whole) | {"agsr.whole_model": "other"}
    assert _parameters(whole)["agsr.precision"] == "fp32"
