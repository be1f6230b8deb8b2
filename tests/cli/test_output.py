"""What the command line shows while it works."""

from __future__ import annotations

import signal

import pytest

from agsr.cli.output.tables import build_progress
from agsr.system.signals import Terminated, terminable

BOTH = [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]


def _build(number: signal.Signals, *, reports_after: bool) -> list[bool]:
    """A build that a signal comes into: the answers it gets, to go on or not."""
    with terminable(), build_progress("x") as report:
        answers = [report("parsing", 0.1)]
        signal.raise_signal(number)
        if reports_after:
            answers.append(report("building", 0.5))
            raise RuntimeError(f"cancelled after {answers}")
    return answers


@pytest.mark.parametrize("number", [number for number, _ in BOTH])
def test_a_signal_during_a_build_cancels_it(number: signal.Signals) -> None:
    with pytest.raises(RuntimeError, match=r"cancelled after \[True, False\]"):
        _build(number, reports_after=True)


@pytest.mark.parametrize(("number", "raised"), BOTH)
def test_a_signal_after_a_build_s_last_report_is_not_lost(
    number: signal.Signals, raised: type[BaseException]
) -> None:
    before = signal.getsignal(number)
    with pytest.raises(raised):
        _build(number, reports_after=False)
    assert signal.getsignal(number) is before
