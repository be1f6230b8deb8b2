"""Cutting a large image into overlapping windows whose results join without a seam.

A window is a core, which is kept, and a halo around it, which only feeds the core's border. With a
halo of the network's receptive radius the joined result is the whole image's, up to float rounding.
Windows of one image have one shape wherever the image is large enough: those at the far border are
moved inwards rather than cut, so that runtimes plan one shape only.

All coordinates are LR pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

DEFAULT_HALO = 16
"""Halo of tiles where nothing else is asked for; its error is measured in ``docs/tiling.md``."""

AUTO_TILE = 256
"""Largest core side that ``--tile auto`` cuts to: larger are slower, see ``docs/tiling.md``."""

AUTO_SMALLEST = 32
"""Smallest one, however little memory is free."""

AUTO_WHOLE = AUTO_TILE + 2 * DEFAULT_HALO
"""Images of at most this many pixels squared are not cut by ``--tile auto`` if memory is free."""

_AUTO_STEP = 16


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
class Room:
    """Memory for the work at an image."""

    free: int
    """Bytes that may be taken."""
    pixel: int
    """Bytes at work per pixel of a window."""
    row: int
    """Bytes that a row of the image becomes, as often as it is in memory."""

    def holds(self, height: int, width: int) -> bool:
        """Whether there is room for a window of this size and for the rows that it gives."""
        return height * width * self.pixel + height * self.row <= self.free


def windows(height: int, width: int, tile: int, halo: int, top: int = 0) -> Iterator[Window]:
    """Cut an image, row by row; the kept parts cover every pixel exactly once.

    Args:
        height: Image height.
        width: Image width.
        tile: Largest side of a window without its halos; 0 means the whole image in one window.
        halo: Pixels read around a kept part, where the image has them.
        top: First row to keep.

    Raises:
        ValueError: A size is negative, or the image is empty.
    """
    if min(height, width) < 1 or tile < 0 or halo < 0:
        raise ValueError(f"image {height}x{width}, tile {tile}, halo {halo}: out of range")
    columns = list(spans(width, tile, halo))
    for rows in spans(height, tile, halo):
        if rows.keep_stop > top:
            kept = replace(rows, keep_start=max(rows.keep_start, top))
            for column in columns:
                yield Window(kept, column)


def spans(length: int, tile: int, halo: int) -> Iterator[Span]:
    """Cut one axis; see `windows`."""
    inner = length - 2 * halo
    if tile == 0 or inner <= tile:
        yield Span(0, length, 0, length)
        return
    count = -(-inner // tile)
    window = -(-inner // count) + 2 * halo  # equal shares: no sliver at the far border
    kept = 0
    while kept < length:
        start = min(max(kept - halo, 0), length - window)
        stop = start + window
        keep_stop = length if stop == length else stop - halo
        yield Span(start, stop, kept, keep_stop)
        kept = keep_stop


def auto_tile(height: int, width: int, room: Room | None = None, halo: int = DEFAULT_HALO) -> int:
    """The tile side for ``--tile auto``: 0 (do not cut) for small images.

    Args:
        height: Image height.
        width: Image width.
        room: What the tiles have to fit into; None if nobody can tell.
        halo: Pixels read around a tile.
    """

    def fits(tile: int) -> bool:
        side = tile + 2 * halo
        return room is None or room.holds(min(side, height), min(side, width))

    if height * width <= AUTO_WHOLE**2 and (room is None or room.holds(height, width)):
        return 0
    sides = range(AUTO_TILE, AUTO_SMALLEST, -_AUTO_STEP)
    return next((side for side in sides if fits(side)), AUTO_SMALLEST)
