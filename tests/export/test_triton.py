from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from agsr.cli import main
from agsr.errors import ExportError
from agsr.export.triton import write_repository
from agsr.system import atomic_file


def _config(folder: Path) -> model_config_pb2.ModelConfig:
    """The configuration as Triton's own schema reads it; unknown or misspelt fields are errors."""
    text = (folder / "config.pbtxt").read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_the_repository_is_what_triton_expects(
    tmp_path: Path, onnx_file: Callable[[int], Path]
) -> None:
    folder = write_repository(tmp_path / "models", "tiny", onnx_file(1), max_batch=4)
    assert folder == tmp_path / "models" / "tiny"
    assert (folder / "1" / "model.onnx").read_bytes() == onnx_file(1).read_bytes()
    config = _config(folder)
    assert (config.name, config.platform, config.max_batch_size) == ("tiny", "onnxruntime_onnx", 4)
    for port, name in ((config.input[0], "lr"), (config.output[0], "sr")):
        assert (port.name, list(port.dims)) == (name, [3, -1, -1])
        assert port.data_type == model_config_pb2.TYPE_FP32
    assert list(config.dynamic_batching.preferred_batch_size) == [4]
    assert config.instance_group[0].count == 1


def test_engines_are_served_as_plans(tmp_path: Path) -> None:
    engine = tmp_path / "x.engine"
    engine.write_bytes(b"engine")
    folder = write_repository(tmp_path / "models", "x", engine, platform="tensorrt_plan")
    assert (folder / "1" / "model.plan").read_bytes() == b"engine"
    assert _config(folder).platform == "tensorrt_plan"


def test_what_is_there_is_not_replaced(tmp_path: Path, onnx_file: Callable[[int], Path]) -> None:
    write_repository(tmp_path, "tiny", onnx_file(1))
    with pytest.raises(ExportError, match="exists; remove it"):
        write_repository(tmp_path, "tiny", onnx_file(2))
    with pytest.raises(ExportError, match="can't name a Triton model"):
        write_repository(tmp_path, "../tiny", onnx_file(1))


def test_export_writes_a_repository(
    tmp_path: Path, checkpoint_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["export", "-w", str(checkpoint_file), "-s", "1", "--triton", "models"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert _config(Path("models/tiny-1")).name == "tiny-1"
    assert "tritonserver --model-repository models" in result.stdout


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
