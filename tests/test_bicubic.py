from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agsr.bicubic import crop_to_multiple, downscale, upscale, upscale_planes
from agsr.image import read_rgb


@pytest.mark.data
@pytest.mark.parametrize(("name", "count"), [("Set5", 5), ("Set14", 14), ("BSD100", 100)])
def test_published_lr_images_are_reproduced_bit_for_bit(data: Path, name: str, count: int) -> None:
    files = sorted((data / name / "HR").glob("*.png"))
    assert len(files) == count
    wrong = {
        file.name: int(difference.sum())
        for file in files
        if (
            difference := downscale(crop_to_multiple(read_rgb(file)))
            != read_rgb(data / name / "LRx4" / file.name)
        ).any()
    }
    assert wrong == {}


def test_constant_images_stay_constant() -> None:
    grey = np.full((12, 20, 3), 77, np.uint8)
    assert (downscale(grey) == 77).all()
    assert downscale(grey).shape == (3, 5, 3)
    assert (upscale(grey) == 77).all()
    assert upscale(grey).shape == (48, 80, 3)


def test_pixels_outside_are_the_nearest_inside() -> None:
    # One LR pixel: every tap that falls outside the 4x4 image is clamped to its border.
    column = np.repeat(np.array([0, 0, 255, 255], np.uint8)[:, None], 4, axis=1)
    assert downscale(column).tolist() == [[128]]  # symmetric kernel: the mean, rounded half-up


def test_upscale_preserves_a_linear_ramp_inside() -> None:
    ramp = np.tile(np.arange(0, 200, 8, dtype=np.uint8), (8, 1))
    inside = upscale(ramp)[16, 16:-16].astype(int)
    assert set(np.diff(inside)) == {2}


def test_planes_are_upscaled_like_images_but_not_rounded() -> None:
    soft = np.add.outer(np.arange(10) ** 2, 3 * np.arange(7)).astype(np.uint8) + 20
    planes = np.stack([soft, soft.T[:, ::-1].T]).astype(np.float32)
    enlarged = upscale_planes(planes)
    assert (enlarged.dtype, enlarged.shape) == (np.float32, (2, 40, 28))
    for found, plane in zip(enlarged, planes.astype(np.uint8), strict=True):
        assert np.abs(found - upscale(plane)).max() < 1.2  # which rounds after each pass
    assert upscale_planes(planes * 1000 - 9).max() > 1000


def test_sizes_that_are_no_multiple_of_four_are_rejected() -> None:
    with pytest.raises(ValueError, match="multiples of 4"):
        downscale(np.zeros((8, 9, 3), np.uint8))


def test_crop_starts_at_the_top_left() -> None:
    image = np.arange(7 * 9).reshape(7, 9).astype(np.uint8)
    assert (crop_to_multiple(image) == image[:4, :8]).all()
