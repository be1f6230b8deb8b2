"""Cutting a large image into overlapping windows whose results join without a seam.

A window is a core, which is kept, and a halo around it, which only feeds the core's border. With a
halo of the network's receptive radius the joined result is the whole image's, up to float rounding.
Windows of one image have one shape wherever the image is large enough: those at the far border are
moved inwards rather than cut, so that runtimes plan one shape only.

All coordinates are LR pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

DEFAULT_HALO = 16
"""Halo of tiles where nothing else is asked for; its error is measured in ``docs/tiling.md``."""

AUTO_TILE = 256
"""Core side that ``--tile auto`` cuts to: about 0.6 GB at work in fp32, 12 % halo."""

AUTO_WHOLE = AUTO_TILE + 2 * DEFAULT_HALO
"""Images of at most this many pixels squared are not cut by ``--tile auto``."""


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


def windows(height: int, width: int, tile: int, halo: int) -> Iterator[Window]:
    """Cut an image, row by row; the kept parts cover every pixel exactly once.

    Args:
        height: Image height.
        width: Image width.
        tile: Largest side of a window without its halos; 0 means the whole image in one window.
        halo: Pixels read around a kept part, where the image has them.

    Raises:
        ValueError: A size is negative, or the image is empty.
    """
    if min(height, width) < 1 or tile < 0 or halo < 0:
        raise ValueError(f"image {height}x{width}, tile {tile}, halo {halo}: out of range")
    columns = list(spans(width, tile, halo))
    for rows in spans(height, tile, halo):
        for column in columns:
            yield Window(rows, column)


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


def auto_tile(height: int, width: int) -> int:
    """The tile side for ``--tile auto``: 0 (do not cut) for small images."""
    return 0 if height * width <= AUTO_WHOLE**2 else AUTO_TILE
