"""A batch that is killed again and again ends as an unbroken one: the same bytes, nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import PHOTO, ROOT
from PIL import Image

COMMAND = [sys.executable, "-m", "agsr", "infer", "-r", "in", "--skip-existing", "-q"]


@pytest.fixture
def command(tmp_path: Path, onnx_file: Callable[[int], Path]) -> list[str]:
    (tmp_path / "in" / "below").mkdir(parents=True)
    return [*COMMAND, "-w", str(onnx_file(1)), "-o"]


def _fill(folder: Path, files: int) -> None:
    """Pictures of different sizes in two folders."""
    photo = Image.open(PHOTO)
    for number in range(files):
        side = 24 + number % 9
        name = f"below/{number:03}.png" if number % 3 else f"{number:03}.png"
        photo.crop((number, number, number + side, number + side)).save(folder / name)


def _contents(folder: Path) -> dict[str, bytes]:
    """Every file, hidden ones too."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def _start(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE)


def _kill_at_some_moment(command: list[str], folder: Path, moment: np.random.Generator) -> bool:
    """Whether it was still running then: after some results, within a few milliseconds."""
    results, wait = int(moment.integers(0, 9)), float(moment.uniform(0, 0.008))
    with _start(command, folder) as running:
        assert running.stdout is not None
        for _ in range(results):
            running.stdout.readline()
        time.sleep(wait)
        running.send_signal(signal.SIGKILL)
    return running.returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize(("files", "kills"), [(200, 20)])
def test_killed_runs_end_as_an_unbroken_one(
    tmp_path: Path, command: list[str], files: int, kills: int
) -> None:
    _fill(tmp_path / "in", files)
    with _start([*command, "whole"], tmp_path) as unbroken:
        unbroken.communicate()
    assert unbroken.returncode == 0
    moment, left, killed = np.random.default_rng(3), 0, 0
    for _ in range(kills):
        killed += _kill_at_some_moment([*command, "broken"], tmp_path, moment)
        left += sum(name.endswith(".part") for name in _contents(tmp_path / "broken"))
    done = len(_contents(tmp_path / "broken"))
    with _start([*command, "broken"], tmp_path) as last:
        last.communicate()
    assert last.returncode == 0
    assert _contents(tmp_path / "broken") == _contents(tmp_path / "whole")
    assert len(_contents(tmp_path / "whole")) == files
    assert killed == kills, done
    assert left  # or nothing was killed while it wrote


def test_a_run_that_has_nothing_to_do_removes_what_a_killed_one_left(
    tmp_path: Path, command: list[str]
) -> None:
    _fill(tmp_path / "in", 2)
    for _ in range(2):
        with _start([*command, "out"], tmp_path) as running:
            running.communicate()
        assert len(_contents(tmp_path / "out")) == 2
        (tmp_path / "out" / f".agsr-{'0' * 16}.part").write_text("half")
