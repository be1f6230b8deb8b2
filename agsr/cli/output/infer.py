"""What ``agsr infer`` shows on stderr: how far a batch is, and what became of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from agsr.system.progress import Progress
from agsr.system.text import counted
from agsr.system.time_left import TimeLeft

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from agsr.engines.batch.manifest import Manifest

LINE_EVERY = 30.0
"""Seconds between two lines of progress where there is no terminal for a bar."""


class BatchProgress:
    """Files completed, their rate, and the estimated time left.

    On a terminal it is a bar that goes away; elsewhere, as in a log, a line now and then.

    Args:
        work: Pixels of each file: the share that is done and the time left follow them.
        quiet: Show nothing.
        clock: Seconds.
    """

    def __init__(
        self, work: Sequence[float], quiet: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._work, self._clock = work, clock
        self._before = [0.0, *accumulate(work)]
        self.left = TimeLeft(self._before[-1], clock)
        self._bar = _files_bar(self._before[-1], self.text) if shows_bars() and not quiet else None
        self._began = self._printed = clock()
        self._files = 0.0
        self._in_lines = self._bar is None and not quiet

    def update(self, progress: Progress) -> None:
        """Show the number of completed files, with the share of the current one."""
        done = self._files = progress.done
        pixels = self._pixels(done)
        self.left.update(pixels)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=pixels)
        now = self._clock()
        if self._in_lines and done and now - self._printed >= LINE_EVERY:
            self._printed = now
            _tell(self._line(pixels))

    def _pixels(self, done: float) -> float:
        number = min(int(done), len(self._work))
        share = done - number
        return self._before[number] + (share * self._work[number] if share > 0 else 0.0)

    def _line(self, pixels: float) -> str:
        left = f"about {duration(self.left.seconds or 0)} left"
        if len(self._work) == 1:
            return f"{pixels / self._before[-1]:.0%} done, {left}"
        rate = 60 * self._files / (self._clock() - self._began)
        return f"{int(self._files)} of {len(self._work)} files done, {rate:.1f} files/min, {left}"

    def text(self, short: bool) -> str:
        """What stands behind the bar."""
        files, seconds = len(self._work), self.left.seconds
        left = "" if seconds is None else f"{duration(seconds)} left"
        if files == 1:
            return left
        spent = self._clock() - self._began
        rate = f"{60 * self._files / spent:.1f} files/min" if self._files and spent else ""
        counted = f"{int(self._files)}/{files} files"
        return "  ".join(filter(None, (counted, "" if short else rate, left)))

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
    from agsr.cli.output.tables import stderr  # as slow to load

    stderr().print(line)


def _files_bar(total: float, describe: Callable[[bool], str]) -> Bar:
    from agsr.cli.output.bars import files_bar  # rich is slow to load, and needed on terminals only

    return files_bar(total, describe)


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
    hidden: int = 0
    """Hidden files in folders, and files of the system."""
    links: int = 0
    """Other names of inputs."""
    elsewhere: int = 0
    """Inputs of other shards."""
    videos: int = 0
    """Of the results, those that are videos."""
    small: int = 0
    """Results smaller than was asked for."""
    alpha: int = 0
    """Results that have alpha."""
    pixels: int = 0
    """Of all images that were written."""
    seconds: float = 0.0
    """From the first image's reading to the last one's end."""
    manifest: Manifest | None = None
    """Gets a row per file."""

    def flush(self) -> None:
        """Write the rows of the manifest that are not written yet.

        Raises:
            ImageError: They can't be written.
        """
        if self.manifest is not None:
            self.manifest.flush()

    @property
    def skipped(self) -> int:
        """Files that were found and not upscaled."""
        skipped = self.left_out + self.unread + self.existing + self.hidden + self.links
        return skipped + self.elsewhere

    def summary(self, doing: str = "upscaled") -> str:
        """All that happened in one line, with the rate."""
        counts = {
            doing: self.done,
            "already there": self.existing,
            "failed": self.failed,
            "skipped as results of earlier runs": self.left_out,
            "skipped as unsupported": self.unread,
            "skipped as hidden": self.hidden,
            "skipped as other names of inputs": self.links,
            "in other shards": self.elsewhere,
        }
        text = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        images = self.done - self.videos
        if not images or not self.seconds:
            return text
        files, pixels = 60 * images / self.seconds, self.pixels / 1e6 / self.seconds
        took = duration(self.seconds) + (f" for {counted(images, 'image')}" if self.videos else "")
        return f"{text}; {took}, {_figure(files)} files/min, {_figure(pixels)} MP/s of results"


def _figure(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"
