from __future__ import annotations

import io

import pytest
from rich.console import Console

from agsr.cli.output.bars import files_bar, frames_bar
from agsr.cli.output.infer import BatchProgress, Tally, duration
from agsr.cli.output.tables import plain_bar
from agsr.system.progress import Progress


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
    with BatchProgress([1.0] * files, quiet=False, clock=clock) as progress:
        for now, done in ((0.0, 0.0), (10, 1), (32, 2.0), (50, 3), (64, 8), (65, 9)):
            clock.now = now
            progress.update(Progress(done if files > 1 else done / 100, None))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == lines


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    clock = _Clock()
    with BatchProgress([1.0] * 9, quiet=True, clock=clock) as progress:
        clock.now = 1000
        progress.update(Progress(3, None))
    assert capsys.readouterr().err == ""


def test_a_summary_tells_counts_and_rates() -> None:
    tally = Tally(done=30, existing=2, failed=1, left_out=4, pixels=30_000_000, seconds=90)
    assert tally.summary() == (
        "30 upscaled, 2 already there, 1 failed, 4 skipped as results of earlier runs; "
        "90 s, 20 files/min, 0.33 MP/s of results"
    )
    assert Tally(existing=3).summary() == "3 already there"
    assert Tally(done=3).summary("to upscale") == "3 to upscale"


def test_times_have_rounded_units() -> None:
    texts = [duration(seconds) for seconds in (0.04, 9.9, 42, 99, 150, 5000, 9000)]
    assert texts == ["0.0 s", "9.9 s", "42 s", "99 s", "2 min", "83 min", "2.5 h"]


def test_on_a_terminal_a_bar_tells_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # makes rich take it for a terminal, too
    monkeypatch.setattr("agsr.cli.output.infer.shows_bars", lambda: True)
    with BatchProgress([1.0] * 9, quiet=False) as progress:
        progress.update(Progress(3, None))
        with progress.cleared():
            pass
    assert "3/9 files" in capsys.readouterr().err


def test_the_time_left_follows_pixels_and_counts_down() -> None:
    clock = _Clock()
    progress = BatchProgress([1e6, 1e6, 98e6], quiet=False, clock=clock)
    for now, done in ((1, 1.0), (2, 2.0)):
        clock.now = now
        progress.update(Progress(done, None))
    assert progress.left.seconds == pytest.approx(98)  # not the second that a third file would be
    clock.now = 30
    assert progress.left.seconds == pytest.approx(70)  # standing still, it does not grow
    progress.update(Progress(2 + 1 / 98, None))
    assert progress.left.seconds == pytest.approx(30 * 97 / 3)


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120])
@pytest.mark.parametrize("files", [1, 12345])
def test_the_bar_fits_into_one_line_of_any_terminal(width: int, files: int) -> None:
    clock = _Clock()
    progress = BatchProgress([1e6] * files, quiet=True, clock=clock)
    clock.now = 100
    progress.update(Progress(files / 3, None))
    console = Console(width=width, file=io.StringIO(), force_terminal=True)
    bar = files_bar(files, progress.text, console)
    frames = frames_bar(console)
    behind = "1200/123456 frames  1.20 frames/s  300 min left"
    frames.update(frames.task_ids[0], completed=1, total=9, text=behind)
    plain = plain_bar(console=console)
    plain.add_task("building an engine of psnr: a long description of a phase", total=9)
    for shown in (bar, frames, plain):
        lines = console.render_lines(shown.get_renderable())
        assert len(lines) == 1
        assert sum(segment.cell_length for segment in lines[0]) <= width
    (line,) = console.render_lines(bar.get_renderable())
    text = "".join(segment.text for segment in line)
    assert "left" in text or width < 40
    assert ("━" in text) == (width >= 60)
