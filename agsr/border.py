"""What the network sees beyond a picture's border: nothing, the picture mirrored, or its far side.

It was trained with zeros there, which photographs never show, and flat saturated colours do: by up
to 11 levels. A texture that tiles has to be seen with its neighbours, or its seams show.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any, Literal

import numpy as np

from agsr.picture import Picture, Pixels, Stripes
from agsr.shrink import shrunk_stripes

Border = Literal["mirror", "wrap"]
"""``mirror`` repeats the pixels beside the border outwards, ``wrap`` goes on at the far side."""

_PADDING: dict[Border, Literal["symmetric", "wrap"]] = {"mirror": "symmetric", "wrap": "wrap"}

BORDERS = tuple(_PADDING)


def extended(picture: Picture, border: Border, margin: int) -> Picture:
    """A picture with so many more pixels at each side.

    Args:
        picture: Of ``(H, W)`` pixels; a smaller one than the margin is repeated.
        border: What the pixels show.
        margin: Their number.

    Returns:
        Of ``(H + 2 margin, W + 2 margin)`` pixels.
    """

    def wider(pixels: Pixels) -> Any:
        sides = [(margin, margin)] * 2 + [(0, 0)] * (pixels.ndim - 2)
        return np.pad(pixels, sides, mode=_PADDING[border])

    alpha = None if picture.alpha is None else wider(picture.alpha)
    return Picture(wider(picture.pixels), alpha, picture.metadata)


def shrunk_inside(stripes: Stripes, margin: int, height: int, width: int) -> Stripes:
    """What lies within a margin, shrunk to a size.

    With the margin, so that the filter sees beyond the border too, wherever the margin is whole
    pixels afterwards; else without it.
    """
    inside = stripes.height - 2 * margin, stripes.width - 2 * margin
    (rows, rest_down), (columns, rest_across) = (
        divmod(margin * new, old) for new, old in zip((height, width), inside, strict=True)
    )
    if rest_down or rest_across:
        return shrunk_stripes(_trimmed(stripes, margin, margin), height, width)
    small = shrunk_stripes(stripes, height + 2 * rows, width + 2 * columns)
    return _trimmed(small, rows, columns)


def _trimmed(stripes: Stripes, rows: int, columns: int) -> Stripes:
    """Without so many rows above and below, and columns to the left and right."""
    if not rows and not columns:
        return stripes
    height, width = stripes.height - 2 * rows, stripes.width - 2 * columns
    return stripes.remade(_inner(stripes, rows, columns), height=height, width=width)


def _inner(stripes: Stripes, rows: int, columns: int) -> Iterator[Picture]:
    across = slice(columns, stripes.width - columns)
    top = 0
    with closing(stripes):
        for band in stripes.bands:
            first, last = (side - top for side in (rows, stripes.height - rows))
            down = slice(max(first, 0), max(last, 0))
            if len(pixels := band.pixels[down, across]):
                yield Picture(pixels, None if band.alpha is None else band.alpha[down, across])
            top += len(band.pixels)
