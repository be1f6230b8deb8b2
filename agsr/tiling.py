"""Tiling: overlapping windows of a large image whose results join without a seam.

A window is a core, which becomes part of the result, and a halo around it, which only provides
context. With a halo of the network's receptive radius, the joined result equals the untiled one up
to float rounding. All windows of a large enough image have the same shape: those at the far border
are moved inwards instead of cut, so that runtimes plan one shape only.

All coordinates are LR pixels.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

__all__ = [
    "AUTO_AREA",
    "AUTO_AREA_BF16",
    "AUTO_SMALLEST",
    "DEFAULT_HALO",
    "MemoryBudget",
    "Span",
    "Tile",
    "Window",
    "auto_tile",
    "largest_tile",
    "spans",
    "windows",
]

DEFAULT_HALO = 16
"""Default halo of tiles; ``docs/tiling.md`` gives its error."""

AUTO_AREA = 284**2
"""Pixels of the largest tile of ``--tile auto``; larger ones are slower (``docs/memory.md``). The
largest window is that of a square tile with its halo."""

AUTO_AREA_BF16 = 414**2
"""The same for OpenVINO in bf16: a window twice as large needs the same amount of CPU cache."""

AUTO_SMALLEST = 32
"""Shortest side of a tile of ``--tile auto``, however little memory is free."""

Tile = tuple[int, int]
"""Largest height and width of a window's core; 0 does not cut an axis."""


@dataclass(frozen=True)
class Span:
    """One axis of a window: it reads ``[start, stop)``, its core is ``[core_start, core_stop)``.

    >>> next(spans(100, tile=42, halo=8))
    Span(start=0, stop=58, core_start=0, core_stop=50)
    """

    start: int
    stop: int
    core_start: int
    core_stop: int


@dataclass(frozen=True)
class Window:
    """A rectangle to upscale, with its core.

    >>> next(windows(60, 100, (0, 42), halo=8)).rows
    Span(start=0, stop=60, core_start=0, core_stop=60)
    """

    rows: Span
    columns: Span


@dataclass(frozen=True)
class MemoryBudget:
    """Memory available for upscaling an image.

    >>> budget = MemoryBudget(free=1_000_000, pixel=100, row=500)
    >>> budget.holds(50, 50 * 195), budget.holds(50, 50 * 196)
    (True, False)
    """

    free: int
    """Available bytes."""
    pixel: int
    """Bytes of working memory per pixel of a window."""
    row: int
    """Bytes of results per row of the image, including copies."""

    def holds(self, rows: int, pixels: int) -> bool:
        """Return True if a window fits, with its results.

        Args:
            rows: Its height.
            pixels: Pixels that the network computes for it.
        """
        return rows * self.row + pixels * self.pixel <= self.free


def windows(
    height: int,
    width: int,
    tile: Tile,
    halo: int,
    align: int = 1,
    fixed: Tile | None = None,
) -> Iterator[Window]:
    """Cut an image, row by row; the cores cover every pixel exactly once.

    Args:
        height: Image height.
        width: Image width.
        tile: Largest core.
        halo: Pixels read around a core, within the image.
        align: Windows start at multiples of it, for networks that divide a picture themselves. They
            are larger by less than twice this, and the last ones may be of another size.
        fixed: Height and width that a network computes whatever a window has. Windows of a cut axis
            are then of that size, so that none has to be padded.

    Raises:
        ValueError: A size is negative, or the image is empty.

    >>> [window.columns.core_start for window in windows(60, 100, (0, 42), halo=8)]
    [0, 50]
    """
    if min(height, width) < 1 or min(tile) < 0 or halo < 0:
        raise ValueError(f"image {height}x{width}, tile {tile}, halo {halo}: out of range")
    sides = fixed or (0, 0)
    columns = list(spans(width, tile[1], halo, align, sides[1]))
    for rows in spans(height, tile[0], halo, align, sides[0]):
        for column in columns:
            yield Window(rows, column)


def spans(length: int, tile: int, halo: int, align: int = 1, fixed: int = 0) -> Iterator[Span]:
    """Cut one axis; see `windows`.

    >>> [(span.start, span.stop) for span in spans(100, tile=42, halo=8)]
    [(0, 58), (42, 100)]
    >>> [(span.start, span.stop) for span in spans(100, tile=42, halo=8, align=16)]
    [(0, 80), (16, 100)]
    >>> [(span.start, span.stop) for span in spans(100, tile=42, halo=8, fixed=64)]
    [(0, 64), (36, 100)]
    """
    count = _count(length, tile, halo)
    window = _window(length, count, halo, align)
    if count > 1 and fixed > window:
        window = min(fixed, length)
    if window == length:
        yield Span(0, length, 0, length)
        return
    core_start = 0
    while core_start < length:
        start = min(max(core_start - halo, 0), length - window) // align * align
        stop = start + window if length - start - window >= align else length
        core_stop = length if stop == length else stop - halo
        yield Span(start, stop, core_start, core_stop)
        core_start = core_stop


def largest_tile(largest: int, halo: int, align: int = 1) -> int:
    """Return the largest tile along an axis whose windows a network accepts; 0 or less for none.

    Aligned windows are larger than a tile with its halo.

    >>> largest_tile(100, halo=8), largest_tile(100, halo=8, align=16)
    (84, 49)
    """
    if align == 1:
        return largest - 2 * halo
    window = (largest - align + 1) // align * align  # the last one may have align - 1 more
    return window - 2 * halo - align + 1 if window >= 2 * (halo + align) else 0


def auto_tile(
    height: int,
    width: int,
    budget: MemoryBudget | None = None,
    halo: int = DEFAULT_HALO,
    area: int = AUTO_AREA,
    align: int = 1,
    padded: Callable[[int, int], tuple[int, int]] = lambda height, width: (height, width),
) -> Tile:
    """Choose the tile for ``--tile auto``: the one that fits and computes the fewest pixels.

    Args:
        height: Image height.
        width: Image width.
        budget: Memory that the windows must fit into; None if unknown.
        halo: Pixels read around a tile.
        area: Pixels of the largest tile.
        align: As for `windows`.
        padded: Returns height and width that a network computes for those of a window.

    >>> auto_tile(200, 300), auto_tile(1000, 1000)
    ((0, 0), (323, 242))
    >>> auto_tile(60, 1600, padded=lambda height, width: (max(height, width),) * 2)
    (0, 262)
    """
    # A window that is padded to the least that a network computes costs no more than a smaller one.
    least = math.prod(padded(1, 1))
    largest = max(least, (math.isqrt(area) + 2 * halo) ** 2)
    most = _count(width, AUTO_SMALLEST, halo)

    def fits(rows: int, across: int) -> bool:
        pixels = math.prod(padded(rows, _window(width, across, halo, align)))
        within = budget is None or pixels <= max(1, least) or budget.holds(rows, pixels)
        return pixels <= largest and within

    best: tuple[int, Tile] | None = None
    for down in range(1, _count(height, AUTO_SMALLEST, halo) + 1):
        rows = _window(height, down, halo, align)
        across = bisect_left(range(1, most + 1), True, key=partial(fits, rows)) + 1
        if across > most:
            continue
        columns = _window(width, across, halo, align)
        counts = _count_of(height, rows, down), _count_of(width, columns, across)
        computed = math.prod((*counts, *padded(rows, columns)))
        if best is None or computed < best[0]:
            best = computed, (_tile(height, down, halo), _tile(width, across, halo))
    return best[1] if best else (AUTO_SMALLEST, AUTO_SMALLEST)


def _count(length: int, tile: int, halo: int) -> int:
    """Return the number of windows along an axis, for tiles of at most this side."""
    return max(1, -(-(length - 2 * halo) // tile)) if tile else 1


def _window(length: int, count: int, halo: int, align: int = 1) -> int:
    """Return the side of each of ``count`` windows: equal shares, no sliver at the border.

    Where windows are aligned, that many suffice, but there may be fewer.
    """
    if count == 1:
        return length
    window = _tile(length, count, halo) + 2 * halo
    if align > 1:
        window = -(-max(window + align - 1, 2 * (halo + align)) // align) * align
    return min(window, length)


def _count_of(length: int, window: int, count: int) -> int:
    return 1 if window == length else count


def _tile(length: int, count: int, halo: int) -> int:
    """Return the core of each of ``count`` windows; 0 for one."""
    return 0 if count == 1 else -(-(length - 2 * halo) // count)
