"""Signals that end a command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from agsr.interruption import Terminated, terminable

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


def test_a_terminated_command_exits_143_with_one_line_and_nothing_half_written(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-m", "agsr", "infer", "-", "-o", "a.png", "--steps", "1"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as running:  # fmt: skip
        for _ in range(300):  # until it waits for stdin
            time.sleep(0.1)
            if _waits_for_a_pipe(running.pid):
                break
        running.send_signal(signal.SIGTERM)
        try:
            assert running.wait(30) == 143
        finally:
            running.kill()
        assert running.stdout is not None
        assert running.stderr is not None
        assert (running.stdout.read(), running.stderr.read()) == ("", "terminated\n")
    assert list(tmp_path.iterdir()) == []


def _waits_for_a_pipe(pid: int) -> bool:
    return "pipe" in Path(f"/proc/{pid}/wchan").read_text()
