"""Join overlapping tiles by linear ramps, for networks that look at more than a tile shows.

Tiles of such a network differ where they overlap. Across the overlap of N output pixels, the result
goes over from one tile to the next by N equal steps, so that no border is visible: the join adds
steps of at most the largest difference divided by N. `Seams` measures both on the pictures
themselves.

Data flow: rows of windows (`agsr.tiling`) and the network's outputs → rows of the result, from top
to bottom; the rows of an overlap wait for the tiles below them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from agsr.backend import Batch
from agsr.engines.planes import Array, Planes, planes_like, to_array
from agsr.tiling import Span, Window


@dataclass
class Seams:
    """How much overlapping tiles differ, at most, so far."""

    difference: float = 0.0
    """Largest difference of two tiles where they overlap, levels of 255."""
    step: float = 0.0
    """Largest step that the join adds between two pixels at a tile's border, levels of 255."""

    def note(self, difference: float, ramp: int) -> None:
        """Note a difference of the range, over a ramp of so many output pixels."""
        self.difference = max(self.difference, difference * 255)
        self.step = max(self.step, difference * 255 / ramp)

    def include(self, other: Seams) -> None:
        """Include the differences of another image."""
        self.difference = max(self.difference, other.difference)
        self.step = max(self.step, other.step)

    def __str__(self) -> str:
        return (
            f"overlapping tiles differ by up to {_levels(self.difference)} levels of 255; blended, "
            f"the step at a tile's border is at most {_levels(self.step)}"
        )


def _levels(number: float) -> str:
    return f"{number:.0f}" if number >= 10 else f"{number:.2g}"


@dataclass(frozen=True)
class Ramp:
    """Rows or columns, LR pixels, in which the result goes over from one window to the next."""

    start: int
    stop: int


@dataclass(frozen=True)
class _Row:
    """A row of windows, and what becomes of its rows."""

    windows: Sequence[Window]
    above: Ramp
    """Rows shared with the windows above it; the result is complete up to its start."""
    below: Ramp
    """Rows shared with the windows below it."""


def ramps(spans: Sequence[Span]) -> list[Ramp]:
    """Return the ramp at the end of each span: its overlap with the next one.

    No ramp reaches beyond the middle of a core, so that at most two windows are mixed.

    >>> ramps([Span(0, 58, 0, 50), Span(42, 100, 50, 100)])
    [Ramp(start=42, stop=58), Ramp(start=100, stop=100)]
    """
    end = spans[-1].core_stop
    found = [
        Ramp(max(after.start, _middle(before, end)), min(before.stop, _middle(after, end)))
        for before, after in pairwise(spans)
    ]
    return [*found, Ramp(end, end)]


def _middle(span: Span, end: int) -> int:
    """Return the middle of a core; for the first and last one the border of the picture."""
    if span.core_start == 0:
        return 0
    return end if span.core_stop == end else (span.core_start + span.core_stop) // 2


class Feather:
    """Joins the windows of arrays of one size, row by row.

    Args:
        arrays: The input.
        scale: Output pixels per input pixel.
        seams: Notes the differences.
    """

    def __init__(self, arrays: Sequence[Array], scale: int, seams: Seams) -> None:
        self._arrays, self._scale, self._seams = arrays, scale, seams
        self._above = Ramp(0, 0)
        self._ends: Iterator[Ramp] = iter(())
        self._waiting: list[Planes] = []  # of each array, the rows of `_above`

    def remaining(self, rows: Sequence[Sequence[Window]]) -> Sequence[Sequence[Window]]:
        """Return the rows of windows to run next, of all windows of the image.

        They may be of other sizes than those before. The first one shows the last row that is
        complete, and as much below it as possible.
        """
        starts = [row[0].rows.start for row in rows]
        first = max(i for i, start in enumerate(starts) if start <= self._above.start)
        self._ends = iter(ramps([row[0].rows for row in rows])[first:])
        return rows[first:]

    def join(self, windows: Sequence[Window], outputs: Iterator[Batch]) -> tuple[int, list[Array]]:
        """Return the next rows of every result, and the input row at their end."""
        row = self._fitted(windows, next(self._ends))
        made = [self._joined(number, row, outputs) for number in range(len(self._arrays))]
        self._above, self._waiting = row.below, [waiting for _, waiting in made]
        return row.below.start, [band for band, _ in made]

    def _fitted(self, windows: Sequence[Window], below: Ramp) -> _Row:
        """Shorten the two ramps of a row where they would overlap, as after a change of tiles."""
        above = self._above
        if below.start < above.stop:
            middle = min(above.stop, (above.start + below.stop + 1) // 2)
            above, below = replace(above, stop=middle), replace(below, start=middle)
        return _Row(windows, above, below)

    def _joined(self, number: int, row: _Row, outputs: Iterator[Batch]) -> tuple[Array, Planes]:
        """Return a band of one array, and the rows that wait for the windows below."""
        array, scale = self._arrays[number], self._scale
        height, width = (row.below.start - row.above.start), array.shape[1] * scale
        planes = np.empty((*array.shape[2:], height * scale, width), array.dtype)
        band = planes.transpose(1, 2, 0) if planes.ndim == 3 else planes
        rows = (row.below.stop - row.below.start) * scale
        waiting = np.empty((*array.shape[2:], rows, width), np.float32)
        for left, part in self._columns(array, row, outputs):
            across = slice(left, left + part.shape[-1])
            self._blend_above(number, row.above, part, across)
            band[:, across] = to_array(part[..., : height * scale, :], array)
            waiting[..., across] = part[..., height * scale :, :]
        return band, waiting

    def _columns(
        self, array: Array, row: _Row, outputs: Iterator[Batch]
    ) -> Iterator[tuple[int, Planes]]:
        """Yield parts of a row from left to right, each with its first output column."""
        scale, left = self._scale, 0
        before: Planes | None = None  # right end of the window before
        ends = ramps([window.columns for window in row.windows])
        for window, end in zip(row.windows, ends, strict=True):
            start = window.rows.start
            down = slice((row.above.start - start) * scale, (row.below.stop - start) * scale)
            part = planes_like(next(outputs)[0][:, down], array)
            # Changed in place below, so it must not be the backend's memory.
            part = part.copy() if array.dtype == np.float32 else np.clip(part, 0, 1)
            part = part[..., (left - window.columns.start) * scale :]
            if before is not None:
                ramp = part[..., : before.shape[-1]]
                self._mix(before, ramp, axis=-1)
            stop, ramp_stop = ((side - left) * scale for side in (end.start, end.stop))
            before = part[..., stop:ramp_stop].copy()
            yield left * scale, part[..., :stop]
            left = end.start

    def _blend_above(self, number: int, above: Ramp, part: Planes, across: slice) -> None:
        """Mix the first rows of a part with those that the windows above left, in place."""
        rows = (above.stop - above.start) * self._scale
        if rows:
            self._mix(self._waiting[number][..., :rows, across], part[..., :rows, :], axis=-2)

    def _mix(self, before: Planes, after: Planes, axis: int) -> None:
        """Replace ``after`` by the ramp from ``before`` to it, along an axis."""
        count = after.shape[axis]
        if not after.size:
            return
        # Half a step at both ends, so that two ramps that meet make no larger one.
        weights = (np.arange(count, dtype=np.float32) + np.float32(0.5)) / np.float32(count)
        difference = after - before
        self._seams.note(float(np.abs(difference).max()), count)
        difference *= weights if axis == -1 else weights[:, None]
        np.add(before, difference, out=after)
