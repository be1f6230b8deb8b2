"""Pixels of pictures as a network reads and writes them: arrays → float32 planes → arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agsr.backend import Batch
from agsr.metrics.luma import FULL_RANGE_WEIGHTS

WHITE = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0, np.dtype(np.float32): 1.0}
"""Value of white by data type."""

Array = NDArray[Any]
"""``(H, W, 3)`` or ``(H, W)`` of a type in `WHITE`."""

Planes = NDArray[np.float32]
"""``(3, H, W)``, or ``(H, W)`` for a grey array; nominal range [0, 1]."""


def to_batch(image: Array) -> Batch:
    """``(H, W[, 3])`` of any supported type → ``(1, 3, H, W)`` float32 in [0, 1]."""
    values = image.astype(np.float32) / np.float32(WHITE[image.dtype])
    if values.ndim == 2:
        return np.repeat(values[None, None], 3, axis=1)
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None])


def planes_like(sr: NDArray[np.float32], like: Array) -> Planes:
    """``(3, H, W)`` → the same for a picture in colour, its luma for a grey one."""
    if like.ndim == 3:
        return sr
    return np.asarray(np.tensordot(FULL_RANGE_WEIGHTS, sr, axes=1))


def to_array(planes: Planes, like: Array) -> Array:
    """`Planes` → ``(H, W[, 3])`` of the type of ``like``, rounded half-up."""
    values = planes.transpose(1, 2, 0) if planes.ndim == 3 else planes
    if like.dtype == np.float32:
        return np.asarray(values)
    largest = np.float32(WHITE[like.dtype])
    levels = np.clip(values, 0, 1) * largest + np.float32(0.5)
    return np.asarray(levels.astype(like.dtype))
