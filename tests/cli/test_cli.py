from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_line import agsr, agsr_process
from conftest import PHOTO, tiny_checkpoint

from agsr.cli.infer import infer
from agsr.image.decode import MAX_PIXELS
from agsr.model.checkpoint import Checkpoint, blend, load_checkpoint, save_checkpoint


@pytest.mark.usefixtures("small_files")
def test_export_and_infer_with_the_exported_file(checkpoint_file: Path) -> None:
    result = agsr("export", "--steps", "2", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["path"] == "psnr-2.onnx"
    assert max(row["largest"] for row in report["parity"]) <= 1e-4
    assert agsr("infer", "a.png", "-w", "psnr-2.onnx").exit_code == 0
    weights = ("--weights", str(checkpoint_file))
    shown = agsr("export", *weights, "--steps", "1", "--precision", "fp16")
    assert "tiny-1-fp16.onnx" in shown.stdout
    assert "1x3x1x37" in shown.stdout


@pytest.mark.usefixtures("small_files")
def test_export_blends_weights(checkpoint: Checkpoint, checkpoint_file: Path) -> None:
    other = tiny_checkpoint(seed=1)
    save_checkpoint(other, Path("other.safetensors"))
    options = ("--weights", str(checkpoint_file), "--with", "other.safetensors", "--steps", "1")
    result = agsr("export", *options, "--blend", "0.25", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["path"] == "tiny-other-0.25-1.onnx"
    expected = blend(checkpoint, other, 0.25).weights_hash
    assert report["metadata"]["weights_hash"] == expected


def test_export_overwrites_no_picture(small_files: Path) -> None:
    before = (small_files / "a.png").read_bytes()
    result = agsr("export", "--steps", "1", "-o", "a.png")
    assert (result.exit_code, "-o a.png does not end in .onnx" in result.stderr) == (2, True)
    assert (small_files / "a.png").read_bytes() == before


@pytest.mark.usefixtures("small_files")
def test_training_and_exporting_a_network_of_another_shape() -> None:
    options = ("--data", "set", "--val", "set", "--schedule", "1x2@8/2", "-o", "run")
    Path("set").mkdir()
    shutil.copy(PHOTO, "set")
    result = agsr("train", *options, "--set", "width=8", "--set", "validate_every=1")
    assert result.exit_code == 0, result.output
    assert "finished: 2 of 2 iterations, PSNR-Y 1:" in result.stderr
    assert load_checkpoint(Path("run/last.safetensors")).config.width == 8  # type: ignore[attr-defined]
    assert "1 step, " in agsr("export", "-w", "run/last.safetensors", "-s", "1").stdout


def test_eval_prints_a_table_or_json(small_files: Path) -> None:
    (small_files / "set").mkdir()
    shutil.copy(PHOTO, small_files / "set")
    table = agsr("eval", "--set", "set", "--steps", "1")
    assert table.exit_code == 0, table.output
    assert "astronaut" in table.stdout
    assert "Bicubic" in table.stdout
    report = json.loads(agsr("eval", "--set", "set", "--steps", "1", "--json").stdout)
    assert report["rows"][0]["psnr"] > report["rows"][0]["bicubic_psnr"]


def test_doctor_shows_advice_with_its_brackets() -> None:
    result = agsr("doctor")
    assert result.exit_code == 0
    assert "runs: CPUExecutionProvider" in result.stdout
    assert "[cpu]" in result.stdout or "[gpu]" in result.stdout or "[pycuda]" in result.stdout


def test_help_lists_every_command_in_full_the_common_ones_first() -> None:
    shown = agsr("--help").stdout
    lines = shown[shown.index("Commands:") :].splitlines()[1:]
    order = [
        "infer",
        "serve",
        "doctor",
        "models",
        "eval",
        "bench",
        "train",
        "export",
        "build",
        "cache",
    ]
    assert [line.split()[0] for line in lines] == order
    assert all(line.endswith(".") and not line.endswith("...") for line in lines)


def test_version_and_help() -> None:
    assert "agsr, version" in agsr("--version").stdout
    for command in ("infer", "export", "eval", "train", "doctor"):
        assert agsr(command, "--help").exit_code == 0
    shown = agsr("infer", "--help").stdout
    assert all(f"\n{title}:\n" in shown for title in ("Results", "Size", "Many files", "Network"))
    assert f"[default:\n{' ' * 33}{MAX_PIXELS}]" in shown
    for option in infer.params:
        assert all(name in shown for name in option.opts if name.startswith("-"))


NO_TORCH = """
import sys
for name in ("torch", "safetensors", "onnx", "onnxscript"):
    sys.modules[name] = None
from agsr.cli import main
from agsr.cli.infer import infer
from agsr.image.decode import MAX_PIXELS
from agsr.engines.upscaler import Upscaler
from agsr.image.picture import Picture
main()
"""


def test_infer_needs_no_torch(small_files: Path) -> None:
    done = agsr_process("infer", "a.png", cwd=small_files, program=NO_TORCH)
    assert (done.returncode, done.stdout, done.stderr) == (0, "a_x4.png\n", "")


def test_what_needs_torch_says_so(small_files: Path) -> None:
    for command in (
        ["export", "--opset", "21"],
        ["train"],
        ["infer", "a.png", "--backend", "torch"],
    ):
        done = agsr_process(*command, cwd=small_files, program=NO_TORCH)
        assert done.returncode == 1
        assert "needs the package 'torch', which is not installed" in done.stderr
        assert "pip install 'agsr[train]'" in done.stderr


def test_ctrl_c_exits_130_with_one_line(small_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("agsr.cli.network.open_upscaler", interrupted)
    result = agsr("infer", str(small_files / "a.png"))
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")
