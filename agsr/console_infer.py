"""What ``agsr infer`` shows on stderr: how far a batch is, and what became of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

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
        self._bar = _files_bar(files) if shows_bars() and not quiet else None
        self._files, self._clock = files, clock
        self._began = self._told = clock()
        self._in_lines = self._bar is None and not quiet

    def update(self, done: float) -> None:
        """Show that so many files are done, with the share of the present one."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done)
        now = self._clock()
        if self._in_lines and done and now - self._told >= LINE_EVERY:
            self._told = now
            _tell(_line(done, self._files, now - self._began))

    @contextmanager
    def cleared(self) -> Iterator[None]:
        """Take the bar away while a line is printed, on stdout or stderr."""
        self.__exit__()
        yield
        self.__enter__()

    def __enter__(self) -> BatchProgress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def shows_bars() -> bool:
    """Whether stderr is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


def _tell(line: str) -> None:
    from agsr.console import stderr  # as slow to load

    stderr().print(line)


def _files_bar(files: int) -> Bar:
    from agsr.console_bar import files_bar  # rich is slow to load, and needed on terminals only

    return files_bar(files)


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
    unread: int = 0
    """Pictures in folders that are of a kind that can't be read."""
    videos: int = 0
    """Of the results, those that are videos."""
    small: int = 0
    """Results smaller than was asked for."""
    pixels: int = 0
    """Of all images that were written."""
    seconds: float = 0.0
    """From the first image's reading to the last one's end."""

    def summary(self, doing: str = "upscaled") -> str:
        """All that happened in one line, with the rate."""
        counts = {
            doing: self.done,
            "already there": self.existing,
            "failed": self.failed,
            "left out as results of earlier runs": self.left_out,
            "left out since their kind is not read": self.unread,
        }
        told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        images = self.done - self.videos
        if not images or not self.seconds:
            return told
        files, pixels = 60 * images / self.seconds, self.pixels / 1e6 / self.seconds
        took = duration(self.seconds) + (f" for {images} images" if self.videos else "")
        return f"{told}; {took}, {_figure(files)} files/min, {_figure(pixels)} MP/s of results"


def _figure(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"
