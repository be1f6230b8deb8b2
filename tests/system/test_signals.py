"""Signals that end a command."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from agsr.cli import main
from agsr.engines.batch.plan import Job
from agsr.engines.batch.runner import Outcome
from agsr.system.signals import Terminated, terminable

ROOT = Path(__file__).parents[1]


def test_sigterm_interrupts_once_and_is_as_before_afterwards() -> None:
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


def test_what_a_caller_does_about_sigterm_stays() -> None:
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


def test_how_far_a_batch_came_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    told = "1 of 3 upscaled; --skip-existing goes on with the rest\ninterrupted\n"
    assert result.stderr == told
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


def test_a_terminated_command_exits_143_with_one_line_and_nothing_half_written(
    tmp_path: Path,
) -> None:
    program = "from agsr.cli import main; main(['infer', '-', '-o', 'a.png', '-s', '1', '-v'])"
    with _running(program, tmp_path) as running:
        assert running.stderr is not None
        while " in 0." not in running.stderr.readline():
            pass  # until the network is loaded
        time.sleep(0.5)  # until it waits for stdin
        running.send_signal(signal.SIGTERM)
        try:
            assert running.wait(30) == 143
        finally:
            running.kill()
        assert running.stderr.read() == "terminated\n"
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_that_nobody_reads_does_not_keep_a_command_from_its_end(tmp_path: Path) -> None:
    Image.new("RGB", (120, 120)).save(tmp_path / "a.png")
    program = (
        "from agsr import interruption\n"
        "interruption.GRACE = 1\n"
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
