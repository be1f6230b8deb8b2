"""What the command line's helpers do besides printing."""

from __future__ import annotations

import signal

import pytest

from agsr.console import build_progress


def test_ctrl_c_after_the_last_report_of_a_build_is_not_forgotten() -> None:
    def build() -> None:
        with build_progress("engine") as report:
            assert report("optimizing", 1.0)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        build()


def test_ctrl_c_is_python_s_own_again_after_a_build() -> None:
    before = signal.getsignal(signal.SIGINT)
    with build_progress("engine") as report:
        assert signal.getsignal(signal.SIGINT) != before
        assert report("optimizing", 0.5)
    assert signal.getsignal(signal.SIGINT) == before
