"""Signals that end a command."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import PHOTO
from PIL import Image

from agsr.cli import main
from agsr.engines.batch.plan import Job
from agsr.engines.batch.runner import Outcome
from agsr.system.signals import Terminated, terminable

ROOT = Path(__file__).parents[2]


def test_sigterm_interrupts_once_and_its_handler_is_restored() -> None:
    cleaned: list[bool] = []

    def interrupted() -> None:
        with terminable():
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                signal.raise_signal(signal.SIGTERM)  # from who can't wait
                cleaned.append(True)

    with pytest.raises(Terminated):
        interrupted()
    assert cleaned
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_callers_sigterm_handler_stays() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with terminable():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


def test_a_thread_is_left_alone() -> None:
    entered: list[bool] = []

    def run() -> None:
        with terminable():
            entered.append(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert entered == [True]


def test_the_progress_of_an_interrupted_batch_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def process(_: object, jobs: list[Job], *__: object) -> Iterator[Outcome]:
        yield Outcome(jobs[0], size=(32, 32))
        raise KeyboardInterrupt

    monkeypatch.setattr("agsr.engines.batch.runner.process", process)
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (8, 8)).save(name)
    command = ["infer", "a.png", "b.png", "c.png", "-s", "1"]
    result = CliRunner().invoke(main, command)
    assert (result.exit_code, result.stdout) == (130, "a_x4.png\n")
    stderr = "1 of 3 upscaled; --skip-existing goes on with the rest\ninterrupted\n"
    assert result.stderr == stderr
    assert CliRunner().invoke(main, [*command, "-q"]).stderr == "interrupted\n"


def _running(program: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_a_terminated_command_exits_143_with_one_line_and_no_partial_file(
    tmp_path: Path,
) -> None:
    program = "from agsr.cli import main; main(['infer', '-', '-o', 'a.png', '-s', '1', '-v'])"
    with _running(program, tmp_path) as running:
        assert running.stderr is not None
        while not re.search(r", in \d+\.\d\d s: ", line := running.stderr.readline()):
            assert line, running.communicate()  # until the network is loaded
        time.sleep(0.5)  # until it waits for stdin
        running.send_signal(signal.SIGTERM)
        try:
            assert running.wait(30) == 143
        finally:
            running.kill()
        assert running.stderr.read() == "terminated\n"
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_without_a_reader_does_not_block_termination(tmp_path: Path) -> None:
    Image.new("RGB", (120, 120)).save(tmp_path / "a.png")
    program = (
        "from agsr.system import signals\n"
        "signals.GRACE = 1\n"
        "from agsr.cli import main\n"
        "main(['infer', 'a.png', '-o', '-', '--ext', 'bmp', '-s', '1'])\n"
    )
    with _running(program, tmp_path) as running:
        assert running.stdout is not None
        assert select.select([running.stdout], [], [], 60)[0]  # the pipe fills
        time.sleep(0.5)
        running.send_signal(signal.SIGTERM)
        try:
            assert running.wait(30) == 143
        finally:
            running.kill()


PAUSE = """
import importlib, pathlib, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # none in the background
module, name, at, *arguments = sys.argv[1:]
owner = importlib.import_module(module)
*path, name = name.split(".")
for part in path:
    owner = getattr(owner, part)
real, calls = getattr(owner, name), iter(range(10**6))
def paused(*given, **options):
    if next(calls) == int(at):
        print("ready", flush=True)
        while not pathlib.Path("go").exists():
            time.sleep(0.02)
    return real(*given, **options)
setattr(owner, name, paused)
from agsr.cli import main
main(arguments)
"""
"""A command that waits in a function's call of some number, until a file appears."""

BOTH = (signal.SIGINT, signal.SIGTERM)
_TINY = "--fp32 --no-tensorboard --schedule 1x400@8/1 --set width=8 --set growth=4"
_COMMANDS = {
    "infer": ("agsr.engines.tiled", "_read", 4, "infer a.png -w tiny.onnx --tile 16 --halo 0"),
    "eval": ("agsr.bench.scoring", "compare", 1, "eval --set set -w tiny.onnx"),
    "bench": (
        "agsr.bench.runner.entry_run",
        "EntryRun.load",
        1,
        "bench -b ort -w tiny.onnx --json b.json",
    ),
    "doctor": ("agsr.bench.runner.entry_run", "EntryRun.load", 1, "doctor --measure"),
    "export": ("agsr.export.exporter", "verify", 0, "export -w tiny.safetensors -s 1"),
    "train": (
        "agsr.training.step.optimized_module",
        "OptimizedModule.step",
        2,
        f"train --data set --val set -o run {_TINY}",
    ),
    "build": ("agsr.engines.tensorrt.builder", "_parse", 0, "build tiny.onnx --target sm89"),
}
"""By name: where the command waits, at which call, and what is typed."""


@pytest.mark.parametrize(
    ("name", "number"),
    [
        *((name, number) for name in ("infer", "eval", "build") for number in BOTH),
        *((name, signal.SIGTERM) for name in ("export", "train", "bench")),
        ("doctor", signal.SIGINT),
    ],
)
def test_signals_end_every_command_with_their_status_and_no_partial_file(
    name: str,
    number: signal.Signals,
    tmp_path: Path,
    checkpoint_file: Path,
    onnx_file: Callable[[int], Path],
) -> None:
    module, function, at, command = _COMMANDS[name]
    shutil.copy(onnx_file(1), tmp_path / "tiny.onnx")
    shutil.copy(checkpoint_file, tmp_path / "tiny.safetensors")
    (tmp_path / "set").mkdir()
    for file in ("a.png", "set/a.png", "set/b.png"):
        Image.open(PHOTO).crop((0, 0, 96, 96)).save(tmp_path / file)
    before = _files(tmp_path)
    running = subprocess.Popen(
        [sys.executable, "-c", PAUSE, module, function, str(at), *command.split()],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "AGSR_CACHE": str(tmp_path / "cache")},
    )
    assert running.stdout is not None
    try:
        while "ready" not in (line := running.stdout.readline()):
            assert line, running.communicate()
        running.send_signal(number)
        (tmp_path / "go").touch()
        _, stderr = running.communicate(timeout=120)
    finally:
        running.kill()
    assert running.returncode == 128 + number, stderr
    assert "Traceback" not in stderr
    _check_that_no_child_is_left(running.pid)
    left = {file for file in _files(tmp_path) - before if not file.startswith("cache/")} - {"go"}
    assert not [file for file in left if ".part" in file or ".agsr-" in file]
    assert name in ("bench", "train") or left == set()


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def _check_that_no_child_is_left(group: int) -> None:
    """Of the process group, within a few seconds."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError("a child is left")
