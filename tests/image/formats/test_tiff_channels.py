"""What the channels of TIFF files mean, by their tags."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from image_corpus import smooth
from PIL import Image

from agsr.errors import ImageError
from agsr.image import read_picture


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_multiplied_tiff_colour_is_divided_by_alpha(tmp_path: Path, dtype: type) -> None:
    pixels, alpha = smooth((20, 31, 3), dtype), smooth((20, 31), dtype)[::-1].copy()
    largest = np.iinfo(dtype).max
    product = np.rint(pixels * (alpha[..., None] / largest)).astype(dtype)
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.dstack([product, alpha]),
        photometric="rgb",
        extrasamples=["assocalpha"],
    )
    found = read_picture(tmp_path / "a.tif")
    assert found.alpha is not None
    assert np.array_equal(found.alpha, alpha)
    dense = alpha > largest // 2
    difference = np.abs(found.pixels.astype(int) - pixels)[dense]
    assert difference.max() <= 2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_channel_of_unknown_meaning_is_dropped_with_a_warning(
    tmp_path: Path, dtype: type, caplog: pytest.LogCaptureFixture
) -> None:
    samples = smooth((20, 31, 4), dtype)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", extrasamples=["unspecified"])
    found = read_picture(tmp_path / "a.tif")
    assert found.alpha is None
    assert np.array_equal(found.pixels, samples[..., :3])
    assert "unknown meaning" in caplog.text
    caplog.clear()
    found = read_picture(tmp_path / "a.tif", unknown_as_alpha=True)
    assert found.alpha is not None
    assert np.array_equal(found.alpha, samples[..., 3])
    assert np.array_equal(found.pixels, samples[..., :3])
    assert not caplog.text


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_fourth_tiff_channel_of_unspecified_meaning_is_alpha(tmp_path: Path, dtype: type) -> None:
    samples = smooth((20, 31, 4), dtype)
    cv2.imwrite(str(tmp_path / "a.tif"), samples[..., [2, 1, 0, 3]])  # OpenCV tells nothing
    with Image.open(tmp_path / "a.tif") as file:
        assert 338 not in file.tag_v2  # type: ignore[attr-defined]
    found = read_picture(tmp_path / "a.tif")
    assert found.alpha is not None
    assert np.array_equal(found.alpha, samples[..., 3])
    assert np.array_equal(found.pixels, samples[..., :3])


def test_a_tiff_file_of_odd_channels_is_named_in_the_error(tmp_path: Path) -> None:
    samples = smooth((20, 31, 4), np.uint8)
    meaning = ["unspecified", "unspecified", "unspecified"]
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="minisblack", extrasamples=meaning)
    with pytest.raises(ImageError, match=r"a\.tif: a TIFF file that is damaged or truncated \("):
        read_picture(tmp_path / "a.tif")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_channel_of_unknown_meaning_beside_grey_can_be_alpha(tmp_path: Path, dtype: type) -> None:
    samples = smooth((20, 31, 2), dtype)
    tifffile.imwrite(
        tmp_path / "a.tif", samples, photometric="minisblack", extrasamples=["unspecified"]
    )
    assert read_picture(tmp_path / "a.tif").alpha is None
    found = read_picture(tmp_path / "a.tif", unknown_as_alpha=True)
    assert found.alpha is not None
    assert np.array_equal(np.dstack([found.pixels, found.alpha]), samples)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_is_zero_is_turned_round(tmp_path: Path, dtype: type) -> None:
    grey = smooth((20, 31), dtype)
    tifffile.imwrite(tmp_path / "a.tif", grey, photometric="miniswhite")
    assert np.array_equal(read_picture(tmp_path / "a.tif").pixels, np.iinfo(dtype).max - grey)
