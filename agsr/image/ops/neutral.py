"""Detect grey content saved as RGB: scans, manga, black-and-white photographs.

A network trained on colour tints them, so `agsr.engines.picture_upscaler` upscales them as
grey, frame by frame in videos.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

_ROWS = 64
"""Rows compared at a time; coloured pictures are detected in the first ones."""


def is_neutral(pixels: NDArray[Any]) -> bool:
    """Return True if red, green and blue are equal in every pixel of ``(H, W, 3)``.

    >>> import numpy as np
    >>> is_neutral(np.full((2, 2, 3), 7))
    True
    """
    if pixels.ndim != 3:
        return False
    return all(
        _equal(pixels[top : top + _ROWS, :, 1:], pixels[top : top + _ROWS, :, :1])
        for top in range(0, len(pixels), _ROWS)
    )


def _equal(others: NDArray[Any], first: NDArray[Any]) -> bool:
    return bool((others == first).all())
