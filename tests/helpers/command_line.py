"""The command line in this process, and a working folder for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from click.testing import CliRunner, Result
from conftest import PHOTO, ROOT
from PIL import Image

from agsr.cli import main


@pytest.fixture
def small_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with small pictures, good and bad."""
    image = cv2.imread(str(PHOTO))
    cv2.imwrite(str(tmp_path / "a.png"), image[:20, :24])
    cv2.imwrite(str(tmp_path / "b.jpg"), image[30:50, :24])
    Image.new("RGBA", (8, 8), (9, 99, 200, 0)).save(tmp_path / "rgba.png")
    (tmp_path / "zero.png").touch()
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "text.onnx").write_text("not a network")
    (tmp_path / "LRx4").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut.png").write_bytes(PHOTO.read_bytes()[:20000])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def agsr(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def agsr_process(
    *arguments: str, cwd: Path, program: str | None = None
) -> subprocess.CompletedProcess[str]:
    """The command line in a separate process."""
    start = ["-m", "agsr"] if program is None else ["-c", program]
    return subprocess.run(
        [sys.executable, *start, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )
