"""What the command line shows while it works."""

from __future__ import annotations

import signal

import pytest

from agsr.console import build_progress


def _build(*, reports_after: bool) -> list[bool]:
    """A build that Ctrl-C comes into: what it is told, to go on or not."""
    with build_progress("x") as report:
        told = [report("parsing", 0.1)]
        signal.raise_signal(signal.SIGINT)
        if reports_after:
            told.append(report("building", 0.5))
            raise RuntimeError(f"cancelled after {told}")
    return told


def test_ctrl_c_during_a_build_is_told_to_it() -> None:
    with pytest.raises(RuntimeError, match=r"cancelled after \[True, False\]"):
        _build(reports_after=True)


def test_ctrl_c_after_a_build_s_last_report_is_not_lost() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        _build(reports_after=False)
    assert signal.getsignal(signal.SIGINT) is before
