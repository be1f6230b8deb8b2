"""Cutting a large image into overlapping windows whose results join without a seam.

A window is a core, which is kept, and a halo around it, which only feeds the core's border. With a
halo of the network's receptive radius the joined result is the whole image's, up to float rounding.
Windows of one image have one shape wherever the image is large enough: those at the far border are
moved inwards rather than cut, so that runtimes plan one shape only.

All coordinates are LR pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

DEFAULT_HALO = 16
"""Halo of tiles where nothing else is asked for; its error is measured in ``docs/tiling.md``."""

AUTO_AREA = 284**2
"""Pixels of the largest tile that ``--tile auto`` cuts: larger are slower, see ``docs/memory.md``.
The window of a square one, with its halo, is the largest window."""

AUTO_AREA_BF16 = 414**2
"""The same for OpenVINO in bf16: of twice the window, as much lies in the processor's cache."""

AUTO_SMALLEST = 32
"""Least side of a tile that it cuts, however little memory is free."""

Tile = tuple[int, int]
"""Largest height and width of what is kept of a window; 0 leaves an axis uncut."""


@dataclass(frozen=True)
class Span:
    """One axis of a window: ``[start, stop)`` is read, ``[keep_start, keep_stop)`` is kept."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int


@dataclass(frozen=True)
class Window:
    """A rectangle to upscale and the part of it to keep."""

    rows: Span
    columns: Span


@dataclass(frozen=True)
class MemoryBudget:
    """Memory for the work at an image."""

    free: int
    """Bytes that may be taken."""
    pixel: int
    """Bytes at work per pixel of a window."""
    row: int
    """Bytes that a row of the image becomes, as often as it is in memory."""

    def widest(self, height: int) -> int:
        """Width of the widest window of this height that there is room for, with its rows."""
        return (self.free - height * self.row) // (height * self.pixel)


def windows(height: int, width: int, tile: Tile, halo: int, top: int = 0) -> Iterator[Window]:
    """Cut an image, row by row; the kept parts cover every pixel exactly once.

    Args:
        height: Image height.
        width: Image width.
        tile: Largest window without its halos.
        halo: Pixels read around a kept part, where the image has them.
        top: First row to keep.

    Raises:
        ValueError: A size is negative, or the image is empty.
    """
    if min(height, width) < 1 or min(tile) < 0 or halo < 0:
        raise ValueError(f"image {height}x{width}, tile {tile}, halo {halo}: out of range")
    columns = list(spans(width, tile[1], halo))
    for rows in spans(height, tile[0], halo):
        if rows.keep_stop > top:
            kept = replace(rows, keep_start=max(rows.keep_start, top))
            for column in columns:
                yield Window(kept, column)


def spans(length: int, tile: int, halo: int) -> Iterator[Span]:
    """Cut one axis; see `windows`."""
    window = _window(length, _count(length, tile, halo), halo)
    if window == length:
        yield Span(0, length, 0, length)
        return
    kept = 0
    while kept < length:
        start = min(max(kept - halo, 0), length - window)
        stop = start + window
        keep_stop = length if stop == length else stop - halo
        yield Span(start, stop, kept, keep_stop)
        kept = keep_stop


def auto_tile(
    height: int,
    width: int,
    budget: MemoryBudget | None = None,
    halo: int = DEFAULT_HALO,
    area: int = AUTO_AREA,
) -> Tile:
    """The tile for ``--tile auto``: of those that may be, the one that computes the fewest pixels.

    Args:
        height: Image height.
        width: Image width.
        budget: What the windows have to fit into; None if nobody can tell.
        halo: Pixels read around a tile.
        area: Pixels of the largest tile.
    """
    largest = (math.isqrt(area) + 2 * halo) ** 2
    best: tuple[int, Tile] | None = None
    for down in range(1, _count(height, AUTO_SMALLEST, halo) + 1):
        rows = _window(height, down, halo)
        widest = largest // rows
        if budget is not None:
            widest = min(widest, budget.widest(rows))
        if widest < min(width, AUTO_SMALLEST + 2 * halo):
            continue
        across = 1 if widest >= width else _count(width, widest - 2 * halo, halo)
        columns = _window(width, across, halo)
        computed = down * rows * across * columns
        if best is None or computed < best[0]:
            best = computed, (_tile(rows, down, halo), _tile(columns, across, halo))
    return best[1] if best else (AUTO_SMALLEST, AUTO_SMALLEST)


def _count(length: int, tile: int, halo: int) -> int:
    """Windows of an axis that is cut into tiles of at most this side."""
    return max(1, -(-(length - 2 * halo) // tile)) if tile else 1


def _window(length: int, count: int, halo: int) -> int:
    """Side of each of so many windows: equal shares, so that there is no sliver at the border."""
    return length if count == 1 else -(-(length - 2 * halo) // count) + 2 * halo


def _tile(window: int, count: int, halo: int) -> int:
    return 0 if count == 1 else window - 2 * halo
