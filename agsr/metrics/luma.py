"""BT.601 luma in its two ranges: full, as in JPEG, and limited to 16..235, as PSNR is defined on.

The engines derive grey images from RGB in full range; `agsr.metrics.psnr_ssim` measures in limited
range.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FULL_RANGE_WEIGHTS",
    "LIMITED_RANGE_WEIGHTS",
    "full_range_luma",
    "limited_range_luma",
]

FULL_RANGE_WEIGHTS = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Weights of R, G and B in full range: white stays white."""

LIMITED_RANGE_WEIGHTS = np.array([65.481, 128.553, 24.966]) / 255
"""Weights of 8-bit R, G and B in limited range; 16 is added."""


def full_range_luma(rgb: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute full-range luma ``(B, 1, H, W)`` of RGB ``(B, 3, H, W)``, float32.

    >>> full_range_luma(np.ones((1, 3, 1, 1), np.float32)).item()
    1.0
    """
    return np.asarray(np.tensordot(FULL_RANGE_WEIGHTS, rgb, axes=(0, 1))[:, None], np.float32)


def limited_range_luma(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Compute unrounded limited-range luma ``(H, W)`` of RGB ``(H, W, 3)`` uint8.

    A grey image ``(H, W)`` is returned as float64, unchanged in value.

    >>> limited_range_luma(np.zeros((1, 1, 3), np.uint8)).item()
    16.0
    """
    if image.ndim == 2:
        return image.astype(np.float64)
    return image.astype(np.float64) @ LIMITED_RANGE_WEIGHTS + 16
