"""What ``agsr infer`` shows on stderr: how far a batch is, and what became of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.progress import BarColumn, ProgressColumn, Task, TaskProgressColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from agsr.console import stderr

LINE_EVERY = 30.0
"""Seconds between two lines of progress where there is no terminal for a bar."""


class BatchProgress:
    """How many files are done, how fast, how long still.

    On a terminal it is a bar that goes away; elsewhere, as in a log, a line now and then.

    Args:
        files: Of the whole batch; for one, its share counts.
        quiet: Show nothing.
        clock: Seconds.
    """

    def __init__(
        self, files: int, quiet: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        console = stderr()
        many = (_FilesColumn(), _RateColumn()) if files > 1 else ()
        columns = (BarColumn(), TaskProgressColumn(), *many, TimeRemainingColumn())
        shown = console.is_terminal and not quiet
        self._bar = Bar(*columns, console=console, transient=True, disable=not shown)
        self._task = self._bar.add_task("", total=float(files))
        self._files, self._clock = files, clock
        self._began = self._told = clock()
        self._in_lines = not (shown or quiet)

    def update(self, done: float) -> None:
        """Show that so many files are done, with the share of the present one."""
        self._bar.update(self._task, completed=done)
        now = self._clock()
        if self._in_lines and done and now - self._told >= LINE_EVERY:
            self._told = now
            stderr().print(_line(done, self._files, now - self._began))

    @contextmanager
    def cleared(self) -> Iterator[None]:
        """Take the bar away while a line is printed, on stdout or stderr."""
        self._bar.stop()
        yield
        self._bar.start()

    def __enter__(self) -> BatchProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


class _FilesColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{int(task.completed)}/{int(task.total or 0)} files")


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if not task.speed else f"{60 * task.speed:.1f} files/min")


def _line(done: float, files: int, seconds: float) -> str:
    left = f"about {duration(seconds * (files - done) / done)} left"
    if files == 1:
        return f"{done:.0%} done, {left}"
    return f"{int(done)} of {files} files done, {60 * done / seconds:.1f} files/min, {left}"


def duration(seconds: float) -> str:
    """A time as people say it: ``3.1 s``, ``4 min``, ``2.5 h``."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


@dataclass
class Tally:
    """What became of a batch."""

    done: int = 0
    """Results written."""
    existing: int = 0
    """Results that were there already, and skipped."""
    failed: int = 0
    left_out: int = 0
    """Inputs that are results of earlier runs."""
    pixels: int = 0
    """Of all results that were written."""
    seconds: float = 0.0
    """From the first file's reading to the last one's end."""

    def summary(self, doing: str = "upscaled") -> str:
        """All that happened in one line, with the rate."""
        counts = {
            doing: self.done,
            "already there": self.existing,
            "failed": self.failed,
            "left out as results of earlier runs": self.left_out,
        }
        told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        if not self.done or not self.seconds:
            return told
        files, pixels = 60 * self.done / self.seconds, self.pixels / 1e6 / self.seconds
        took = duration(self.seconds)
        return f"{told}; {took}, {_figure(files)} files/min, {_figure(pixels)} MP/s of results"


def _figure(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"
