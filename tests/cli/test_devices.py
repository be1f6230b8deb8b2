"""``agsr infer --devices``: worker processes that end with the command, however that ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from conftest import PHOTO, ROOT
from PIL import Image

from agsr.cli import main


def _infer(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["infer", *arguments])


@pytest.fixture
def album(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    photo = Image.open(PHOTO)
    (tmp_path / "album").mkdir()
    for number in range(5):
        side = 24 if number else 80
        photo.crop((number, 0, number + side, side)).save(tmp_path / f"album/{number}.png")
    (tmp_path / "album" / "text.png").write_text("not an image")
    return tmp_path


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_several_workers_write_what_one_process_writes(
    album: Path, onnx_file: Callable[[int], Path], caplog: pytest.LogCaptureFixture
) -> None:
    command = ["-r", "album", "-w", str(onnx_file(1)), "-o"]
    alone = _infer(*command, "alone", "-j", "1")
    pooled = _infer(*command, "pooled", "--devices", "cpu:2", "-v")
    (worker,) = set(re.findall(r"worker 1: process (\d+)", caplog.text))
    assert int(worker) != os.getpid()
    assert pooled.exit_code == alone.exit_code == 1  # of the file that is no image
    assert _contents(album / "pooled") == _contents(album / "alone")
    lines = pooled.stdout.splitlines()
    assert sorted(lines) == sorted(alone.stdout.replace("alone/", "pooled/").splitlines())
    (error,) = (line for line in alone.stderr.splitlines() if line.startswith("Error: "))
    assert pooled.stderr.splitlines().count(error) == 1
    assert "\n5 upscaled, 1 failed; " in pooled.stderr
    again = _infer(*command, "pooled", "--devices", "cpu:2", "--skip-existing", "-n")
    assert again.stdout == "album/text.png → pooled/text_x4.png\n"


@pytest.mark.parametrize(
    ("number", "status", "last"),
    [
        (signal.SIGINT, 130, "interrupted\n"),
        (signal.SIGTERM, 143, "terminated\n"),
        (signal.SIGKILL, -9, ""),
    ],
)
def test_no_process_outlives_the_command(
    album: Path,
    onnx_file: Callable[[int], Path],
    number: signal.Signals,
    status: int,
    last: str,
) -> None:
    (album / "out").mkdir()
    os.mkfifo(album / "out" / "0_x4.bmp")  # too short for a result: its worker waits
    program = "from signal import *; signal(SIGINT, default_int_handler)\n"  # not in the background
    program += "from agsr.cli import main; main()"
    command = [sys.executable, "-c", program, "infer", "album/0.png", "album/1.png", "-o", "out/"]
    with subprocess.Popen(
        [*command, "--ext", "bmp", "-w", str(onnx_file(1)), "--devices", "cpu:2", "-v"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as running:
        assert running.stderr is not None
        first = running.stderr.readline()
        with (album / "out" / "0_x4.bmp").open("rb") as result:
            result.read(1)
            (os.killpg if number == signal.SIGINT else os.kill)(running.pid, number)
        said = running.stderr.read()
        assert running.wait(60) == status, said
        assert said.endswith(last)
    (worker,) = re.findall(r"^worker 1: process (\d+), \d+ threads?, CPU [\d,]+$", first, re.M)
    _await_end(int(worker))
    assert _contents(album / "out").keys() <= {"1_x4.bmp"}


def _await_end(pid: int) -> None:
    for _ in range(1000):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    pytest.fail(f"process {pid} is still there")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--devices", "cpu:0"), "expected cpu:1 to cpu:1024"),
        (("--devices", "tpu"), "no device 'tpu'"),
        (("--devices", "cpu:2", "--device", "cpu"), "--devices and --device contradict"),
        (("--devices", "cpu:2", "-j", "1"), "--devices and --threads contradict"),
        (("--devices", "cpu:2", "-o", "-"), "--devices is for files"),
        (("--devices", "cpu:2", "-i", "-"), "--devices is for files"),
    ],
)
def test_contradictions_are_wrong_requests(
    album: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = _infer(str(album / "album" / "1.png"), *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
