"""Pad a picture's borders for the network: mirrored, or wrapped around.

The network was trained with zero padding. In photographs this is invisible; in flat saturated
colours it costs up to 11 levels. Tiling textures must be wrapped, or their seams become visible.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from agsr.image.picture import Picture, Pixels

Border = Literal["mirror", "wrap"]
"""``mirror`` reflects pixels at the border, ``wrap`` continues at the opposite side."""

_PADDING: dict[Border, Literal["symmetric", "wrap"]] = {"mirror": "symmetric", "wrap": "wrap"}

BORDERS = tuple(_PADDING)


def extended(picture: Picture, border: Border, margin: int) -> Picture:
    """Pad a picture by ``margin`` pixels on each side.

    Args:
        picture: ``(H, W)`` pixels; repeated if smaller than the margin.
        border: Padding mode.
        margin: Pixels per side.

    Returns:
        A picture of ``(H + 2 margin, W + 2 margin)`` pixels.

    >>> extended(Picture(np.zeros((2, 3), np.uint8)), "wrap", 4).pixels.shape
    (10, 11)
    """

    def wider(pixels: Pixels) -> Any:
        sides = [(margin, margin)] * 2 + [(0, 0)] * (pixels.ndim - 2)
        return np.pad(pixels, sides, mode=_PADDING[border])

    alpha = None if picture.alpha is None else wider(picture.alpha)
    return Picture(wider(picture.pixels), alpha, picture.metadata)
