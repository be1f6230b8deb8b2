"""PSNR and SSIM by the protocol of the super-resolution field (paper, eq. 16-18).

Both are computed on BT.601 luma of 8-bit images, without a border of as many pixels as the scale
(4). Luma is not rounded. SSIM is MATLAB's ``ssim_index``: 11x11 Gaussian window, sigma 1.5,
'valid', K1 = 0.01, K2 = 0.03, L = 255.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agsr.contract import SCALE
from agsr.metrics.luma import limited_range_luma

__all__ = ["BORDER", "WINDOW", "border_of", "decibels", "psnr_y", "ssim_y"]

BORDER = SCALE
"""Width of the excluded border for networks of this project, HR pixels."""

WINDOW = 11
"""Side of SSIM's window, pixels."""

Image8 = NDArray[np.uint8]
Luma = NDArray[np.float64]


def border_of(scale: int) -> int:
    """Return the width of the excluded border: the scale, or nothing for networks that restore.

    >>> border_of(4), border_of(2), border_of(1)
    (4, 2, 0)
    """
    return scale if scale > 1 else 0


def psnr_y(sr: Image8, hr: Image8, border: int = BORDER) -> float:
    """Compute the PSNR on luma in dB, peak 255; infinite for equal images (eq. 16-17).

    Args:
        sr: ``(H, W, 3)`` RGB or ``(H, W)`` grey, uint8.
        hr: Original of the same shape.
        border: Width of the excluded border, pixels.

    Raises:
        ValueError: The images differ in shape, or the border covers them.

    >>> grey = np.full((16, 16), 100, np.uint8)
    >>> round(psnr_y(grey + 1, grey), 2)
    48.13
    """
    x, y = _inner_luma(sr, hr, border)
    return decibels(float(np.mean(np.square(x - y))))


def decibels(error: float) -> float:
    """Convert a mean squared error of 8-bit levels to PSNR in dB; infinite for 0.

    >>> round(decibels(1.0), 2)
    48.13
    """
    return 10 * math.log10(255**2 / error) if error else math.inf


def ssim_y(sr: Image8, hr: Image8, border: int = BORDER) -> float:
    """Compute the SSIM on luma, at most 1 (eq. 18); arguments as for `psnr_y`.

    Raises:
        ValueError: The images differ in shape or are too small for the 11x11 window.

    >>> grey = np.full((32, 32), 100, np.uint8)
    >>> round(ssim_y(grey, grey), 6)
    1.0
    """
    x, y = _inner_luma(sr, hr, border)
    if min(x.shape) < WINDOW:
        raise ValueError(f"images are {x.shape} without their border; SSIM needs at least 11x11")
    mean_x, mean_y = _window(x), _window(y)
    var_x = _window(x * x) - mean_x**2
    var_y = _window(y * y) - mean_y**2
    covariance = _window(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    ssim = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    )
    return float(ssim.mean())


def _inner_luma(sr: Image8, hr: Image8, border: int) -> tuple[Luma, Luma]:
    if sr.shape != hr.shape:
        raise ValueError(f"SR image is {sr.shape}, HR image is {hr.shape}; expected equal shapes")
    if min(sr.shape[:2]) <= 2 * border:
        raise ValueError(
            f"images are {sr.shape[:2]}, all within the border of {border}; expected more"
        )
    inside: Any = np.s_[border : sr.shape[0] - border, border : sr.shape[1] - border]
    return limited_range_luma(sr[inside]), limited_range_luma(hr[inside])


def _window(plane: Luma) -> Luma:
    """Compute the local mean under the Gaussian window, 'valid' part only."""
    import cv2  # slow to import, and needed only here

    blurred = cv2.GaussianBlur(plane, (11, 11), 1.5, borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(blurred, dtype=np.float64)[5:-5, 5:-5]
