"""What the network sees beyond a picture's border: nothing, the picture mirrored, or its far side.

It was trained with zeros there, which photographs never show, and flat saturated colours do: by up
to 11 levels. A texture that tiles has to be seen with its neighbours, or its seams show.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from agsr.image.picture import Picture, Pixels

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
