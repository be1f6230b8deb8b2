"""Keeping an upscaled alpha channel within what is around it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agsr.contract import SCALE

Plane = NDArray[Any]


def bounded(large: Plane, small: Plane) -> Plane:
    """An enlarged plane without values beyond those of the nearest four pixels of the original.

    A network overshoots beside hard edges. In a photograph that is crispness; in alpha it would be
    a ghost outline where the original is fully transparent or fully opaque.

    Args:
        large: ``(4H, 4W)``.
        small: ``(H, W)`` of the same type, of which it was made.
    """
    low, high = (_of_nearest_four(small, choose) for choose in (np.minimum, np.maximum))
    return np.asarray(np.clip(large, low, high))


def _of_nearest_four(small: Plane, choose: np.ufunc) -> Plane:
    """The least or largest of the four original pixels whose centres are around each large one."""
    padded = np.pad(small, 1, mode="edge")
    rows = choose(padded[:-1], padded[1:])
    pairs = choose(rows[:, :-1], rows[:, 1:])
    height, width = small.shape
    offset = SCALE // 2  # pixel centres of the original lie in the middle of 4x4 large ones
    repeated = pairs.repeat(SCALE, axis=0).repeat(SCALE, axis=1)
    return np.asarray(repeated[offset : offset + SCALE * height, offset : offset + SCALE * width])
