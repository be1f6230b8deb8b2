"""Places of results that are checked before long work, and results that replace earlier ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import PHOTO, tiny_checkpoint

from agsr.cli import main
from agsr.model.checkpoint import save_checkpoint


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain").touch()
    return tmp_path


def _fails(command: list[str], *said: str) -> None:
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1, result.output
    for words in said:
        assert words in result.stderr


@pytest.mark.usefixtures("folder")
def test_export_ends_before_the_work(
    checkpoint_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = "agsr.export.exporter.trace"
    monkeypatch.setattr(work, lambda *_: pytest.fail("it was exported"))
    arguments = ["export", "-w", str(checkpoint_file), "-s", "1", "-o"]
    _fails([*arguments, "plain/a.onnx"], "plain", "Not a directory")


def test_build_ends_before_the_work(
    folder: Path, onnx_file: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = "agsr.engines.tensorrt.engine_file.load_tensorrt"
    monkeypatch.setattr(work, lambda *_: pytest.fail("it was built"))
    (folder / "a.engine.json").mkdir()
    for options, reason in (
        (["-o", "plain/a.engine"], "Not a directory"),
        (["-o", "a.engine"], "a.engine.json: Is a directory"),
        (["-o", "b.engine", "--timing-cache", "plain/times"], "Not a directory"),
    ):
        _fails(["build", str(onnx_file(1)), "--target", "sm89", *options], reason)


def test_train_ends_before_the_work(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "agsr.training.launch.load_pairs", lambda *_, **__: pytest.fail("data was loaded")
    )
    arguments = ["train", "--data", str(PHOTO.parent), "--val", str(PHOTO.parent), "-o"]
    _fails([*arguments, "plain"], "plain/state.safetensors: can't be written: Not a directory")
    (folder / "run").mkdir()
    save_checkpoint(tiny_checkpoint(), folder / "run" / "best.safetensors")
    before = (folder / "run" / "best.safetensors").read_bytes()
    reason = "run holds best.safetensors of a run without its state, which would be overwritten"
    _fails([*arguments, "run", "--init", "run/best.safetensors"], reason)
    assert (folder / "run" / "best.safetensors").read_bytes() == before


def test_doctor_ends_before_the_measurement(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agsr.bench.measure.measure", lambda *_: pytest.fail("it was measured"))
    monkeypatch.setenv("AGSR_CACHE", str(folder / "plain" / "below"))
    _fails(["doctor", "--measure"], "Not a directory")


def test_an_export_over_other_weights_is_reported(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for run, seed in (("first", 0), ("second", 1)):
        (folder / run).mkdir()
        save_checkpoint(tiny_checkpoint(seed), folder / run / "best.safetensors")

    def export(run: str) -> str:
        caplog.clear()
        done = CliRunner().invoke(main, ["export", "-w", f"{run}/best.safetensors", "-s", "1"])
        assert done.exit_code == 0, done.output
        return caplog.text

    assert "replaced" not in export("first")
    assert "replaced" not in export("first")  # with the same: a command can be repeated
    assert "best-1.onnx: replaced; it had other weights" in export("second")
    (folder / "best-1.onnx").write_bytes(b"notes")
    assert "best-1.onnx: replaced; it was not a file of 'agsr export'" in export("second")
