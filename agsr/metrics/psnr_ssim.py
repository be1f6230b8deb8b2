"""PSNR and SSIM as the super-resolution field computes them (paper, eq. 16-18).

Both are taken on BT.601 luma of 8-bit images with a border of 4 pixels shaved off. Luma is not
rounded, SSIM is MATLAB's ``ssim_index``: 11x11 Gaussian window, sigma 1.5, 'valid', K1 = 0.01,
K2 = 0.03, L = 255.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agsr.contract import SCALE

BORDER = SCALE
"""Pixels shaved off every side before measuring."""

Image8 = NDArray[np.uint8]
Luma = NDArray[np.float64]

GREY_WEIGHTS = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""BT.601 luma of RGB in full range, as in JPEG: white stays white."""

BT601 = np.array([65.481, 128.553, 24.966]) / 255
"""BT.601 luma of RGB in 16..235, as PSNR is taken on."""


def luma(image: Image8) -> Luma:
    """BT.601 luma of ``(H, W, 3)`` RGB, in 16..235; a grey ``(H, W)`` image keeps its values."""
    if image.ndim == 2:
        return image.astype(np.float64)
    return image.astype(np.float64) @ BT601 + 16


def psnr_y(sr: Image8, hr: Image8, border: int = BORDER) -> float:
    """Peak signal-to-noise ratio on luma in dB, peak 255; infinite for equal images (eq. 16-17)."""
    x, y = _shaved(sr, hr, border)
    error = np.mean(np.square(x - y))
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def ssim_y(sr: Image8, hr: Image8, border: int = BORDER) -> float:
    """Structural similarity on luma, at most 1 (eq. 18).

    Raises:
        ValueError: The images differ in shape or are too small for the 11x11 window.
    """
    x, y = _shaved(sr, hr, border)
    if min(x.shape) < 11:
        raise ValueError(f"images of {x.shape} after shaving; SSIM needs at least 11x11")
    mean_x, mean_y = _window(x), _window(y)
    var_x = _window(x * x) - mean_x**2
    var_y = _window(y * y) - mean_y**2
    covariance = _window(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    ssim = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    )
    return float(ssim.mean())


def _shaved(sr: Image8, hr: Image8, border: int) -> tuple[Luma, Luma]:
    if sr.shape != hr.shape:
        raise ValueError(f"SR image is {sr.shape}, HR image is {hr.shape}; expected equal shapes")
    if min(sr.shape[:2]) <= 2 * border:
        raise ValueError(f"images of {sr.shape[:2]} have nothing left inside a border of {border}")
    inside: Any = np.s_[border : sr.shape[0] - border, border : sr.shape[1] - border]
    return luma(sr[inside]), luma(hr[inside])


def _window(plane: Luma) -> Luma:
    """Weighted local mean under the Gaussian window, 'valid' part only."""
    import cv2  # slow to load, and needed here only

    blurred = cv2.GaussianBlur(plane, (11, 11), 1.5, borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(blurred, dtype=np.float64)[5:-5, 5:-5]
