from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from agsr.bench.data.sets import find_set
from agsr.bicubic import upscale
from agsr.metrics import psnr_y, ssim_y
from agsr.metrics.luma import limited_range_luma

PUBLISHED_BICUBIC = {"Set5": 28.42, "Set14": 26.00, "BSD100": 25.96}


@pytest.mark.data
@pytest.mark.parametrize("name", PUBLISHED_BICUBIC)
def test_bicubic_gets_its_published_psnr(data: Path, name: str) -> None:
    scores = [psnr_y(upscale(image.lr), image.hr) for image in find_set(name, data)]
    # Published tables truncate or round: 28.430 on Set5 is printed as 28.42 and as 28.43.
    assert np.mean(scores) == pytest.approx(PUBLISHED_BICUBIC[name], abs=0.0105)


def test_psnr_of_one_level_is_known() -> None:
    hr = np.full((20, 20), 100, np.uint8)
    assert psnr_y(hr + 1, hr) == pytest.approx(20 * np.log10(255))
    assert psnr_y(hr, hr) == float("inf")


def test_limited_range_luma_spans_16_to_235() -> None:
    white = np.full((1, 1, 3), 255, np.uint8)
    assert limited_range_luma(white).item() == pytest.approx(235)
    assert limited_range_luma(white * 0).item() == pytest.approx(16)
    assert limited_range_luma(np.full((1, 1), 200, np.uint8)).item() == 200


def test_errors_in_the_border_do_not_count() -> None:
    hr = np.full((24, 24, 3), 90, np.uint8)
    sr = hr.copy()
    sr[:4], sr[-4:], sr[:, :4], sr[:, -4:] = 0, 0, 0, 0
    assert psnr_y(sr, hr) == float("inf")
    sr[4, 4] = 0
    assert psnr_y(sr, hr) < 60


def test_ssim_equals_its_definition(photo: NDArray[np.uint8]) -> None:
    hr = photo[:40, :44]
    sr = np.clip(hr.astype(int) + np.random.default_rng(1).integers(-30, 30, hr.shape), 0, 255)
    sr8 = sr.astype(np.uint8)
    assert ssim_y(sr8, hr) == pytest.approx(_ssim_by_definition(sr8, hr), abs=1e-10)
    assert ssim_y(hr, hr) == pytest.approx(1)


def _ssim_by_definition(sr: NDArray[np.uint8], hr: NDArray[np.uint8]) -> float:
    """Wang et al. 2004, window by window, with no filter that could share a mistake."""
    x, y = limited_range_luma(sr[4:-4, 4:-4]), limited_range_luma(hr[4:-4, 4:-4])
    offset = np.arange(-5, 6)
    gauss = np.exp(-(offset**2) / (2 * 1.5**2))
    weight = np.outer(gauss, gauss) / np.outer(gauss, gauss).sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for i in range(x.shape[0] - 10):
        for j in range(x.shape[1] - 10):
            a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            ma, mb = (weight * a).sum(), (weight * b).sum()
            va, vb = (weight * (a - ma) ** 2).sum(), (weight * (b - mb) ** 2).sum()
            cov = (weight * (a - ma) * (b - mb)).sum()
            values.append(
                (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
            )
    return float(np.mean(values))


def test_unequal_and_tiny_images_are_rejected() -> None:
    a, b = np.zeros((20, 20), np.uint8), np.zeros((20, 24), np.uint8)
    with pytest.raises(ValueError, match="equal shapes"):
        psnr_y(a, b)
    with pytest.raises(ValueError, match="all within the border of 4"):
        psnr_y(a[:8], a[:8])
    with pytest.raises(ValueError, match="11x11"):
        ssim_y(a[:18], a[:18])
