from __future__ import annotations

import pytest

from agsr.console_infer import BatchProgress, Tally, duration


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("files", "lines"),
    [
        (
            200,
            [
                "2 of 200 files done, 3.8 files/min, about 53 min left",
                "8 of 200 files done, 7.5 files/min, about 26 min left",
            ],
        ),
        (1, ["2% done, about 26 min left", "8% done, about 12 min left"]),
    ],
)
def test_without_a_terminal_a_line_now_and_then_tells_how_long(
    files: int, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    clock = _Clock()
    with BatchProgress(files, quiet=False, clock=clock) as progress:
        for now, done in ((0.0, 0.0), (10, 1), (32, 2.0), (50, 3), (64, 8), (65, 9)):
            clock.now = now
            progress.update(done if files > 1 else done / 100)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == lines


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    clock = _Clock()
    with BatchProgress(9, quiet=True, clock=clock) as progress:
        clock.now = 1000
        progress.update(3)
    assert capsys.readouterr().err == ""


def test_a_summary_tells_counts_and_rates() -> None:
    tally = Tally(done=30, existing=2, failed=1, left_out=4, pixels=30_000_000, seconds=90)
    assert tally.summary() == (
        "30 upscaled, 2 already there, 1 failed, 4 left out as results of earlier runs; "
        "90 s, 20 files/min, 0.33 MP/s of results"
    )
    assert Tally(existing=3).summary() == "3 already there"
    assert Tally(done=3).summary("to upscale") == "3 to upscale"


def test_times_are_told_as_people_do() -> None:
    told = [duration(seconds) for seconds in (0.04, 9.9, 42, 99, 150, 5000, 9000)]
    assert told == ["0.0 s", "9.9 s", "42 s", "99 s", "2 min", "83 min", "2.5 h"]


def test_on_a_terminal_a_bar_tells_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # makes rich take it for a terminal, too
    monkeypatch.setattr("agsr.console_infer.shows_bars", lambda: True)
    with BatchProgress(9, quiet=False) as progress:
        progress.update(3)
        with progress.cleared():
            pass
    assert "3/9 files" in capsys.readouterr().err
