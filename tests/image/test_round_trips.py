"""What is written, as libvips reads it: pixels, alpha, depth, profile, EXIF, orientation, DPI.

libvips has its own loaders for all formats but BMP, which OpenCV judges, and Targa, which
`image_corpus` reads by the book.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import pytest
import pyvips
from image_corpus import from_targa, noise
from PIL import Image
from tagged_files import GREY, SRGB, TARGETS, tagged_file

from agsr.image.decode import decode
from agsr.image.encode import FORMATS, encode
from agsr.image.metadata import Metadata
from agsr.image.picture import Picture

EXACT = [".png", ".tif", ".tiff", ".webp", ".tga"]
MILLIMETRES = 25.4
Seen = Any


def _seen(content: bytes) -> Seen:
    """The file by libvips; it holds all fields of metadata, too."""
    return pyvips.Image.new_from_buffer(content, "")


def _expected(picture: Picture, suffix: str) -> Any:
    """``(H, W, C)`` as the format holds it."""
    form = FORMATS[suffix]
    pixels: Any = picture.pixels
    planes = pixels if pixels.ndim == 3 else pixels[..., None]
    if planes.shape[2] == 1 and not form.grey:
        planes = planes.repeat(3, axis=2)
    if picture.alpha is not None and form.alpha:
        planes = np.concatenate([planes, picture.alpha[..., None]], axis=2)
    if picture.alpha is not None and not form.alpha:
        largest = np.iinfo(planes.dtype).max
        share = picture.alpha[..., None] / largest
        planes = planes * share + largest * (1 - share)
    if form.deep or picture.pixels.dtype == np.uint8:
        return planes.astype(picture.pixels.dtype)
    return np.rint(planes / 257).astype(np.uint8)


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(), (3,)])
@pytest.mark.parametrize("suffix", sorted(FORMATS))
def test_pixels_depth_and_alpha_are_what_another_reader_sees(
    suffix: str, shape: tuple[int, ...], dtype: type, alpha: bool
) -> None:
    """Alpha has edges from nothing to everything; colour under nothing must not be lost in PNG."""
    opacity = np.zeros_like(noise(dtype=dtype))
    opacity[:, 5:9], opacity[:, 9:] = np.iinfo(dtype).max // 2, np.iinfo(dtype).max
    picture = Picture(noise(*shape, dtype=dtype), opacity if alpha else None)
    written, expected = encode(picture, suffix, "a"), _expected(picture, suffix)
    if suffix == ".bmp":
        shown = cv2.imdecode(np.frombuffer(written, np.uint8), cv2.IMREAD_UNCHANGED)
        shown = shown[..., ::-1] if shown.ndim == 3 else shown[..., None]
    elif suffix == ".tga":
        shown = from_targa(written)
    else:
        shown = _seen(written).numpy().reshape(*picture.pixels.shape[:2], -1)
    assert (shown.shape, shown.dtype) == (expected.shape, expected.dtype)
    difference = np.abs(shown.astype(int) - expected)
    if suffix == ".webp" and alpha:  # what nobody sees is not kept
        difference[..., :3][opacity == 0] = 0
    if suffix in EXACT:
        assert difference.max() == 0
    elif suffix == ".bmp":
        assert difference.max() <= alpha
    else:
        assert difference.mean() <= 4
    if suffix == ".avif" and alpha:
        assert difference[..., -1].max() <= 8


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", TARGETS)
def test_metadata_is_what_another_reader_finds(source: str, target: str) -> None:
    shown = _seen(encode(decode(tagged_file(source), "a"), target, "b"))
    fields = shown.get_fields()
    assert (shown.width, shown.height) == (20, 30)
    assert shown.get("icc-profile-data") == SRGB
    assert b"adobe:ns:meta" in shown.get("xmp-data")
    assert ("orientation" not in fields) or shown.get("orientation") == 1
    if target != ".tif":  # there libvips reads no EXIF
        assert shown.get("exif-ifd0-Make").startswith("Maker")
        assert shown.get("exif-ifd2-DateTimeOriginal").startswith("2020:01:02 03:04:05")
        assert shown.get("exif-ifd2-PixelXDimension").startswith("20 ")
        assert shown.get("exif-ifd3-GPSLatitudeRef").startswith("N")
    if source in (".png", ".tif", ".jpg"):  # Pillow reports no resolution for the others
        dpi = (
            [float(Fraction(shown.get(f"exif-ifd0-{axis}Resolution").split()[0])) for axis in "XY"]
            if target in (".webp", ".avif")
            else [shown.xres * MILLIMETRES, shown.yres * MILLIMETRES]
        )
        assert dpi == pytest.approx((120, 240), rel=1e-2)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".png"])
def test_orientation_is_applied_as_another_reader_does(suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    content = tagged_file(suffix, exif)
    turned = _seen(content).autorot().numpy()
    again = _seen(encode(decode(content, "a"), ".png", "a")).autorot().numpy()
    assert turned.shape == again.shape
    assert np.abs(turned.astype(int) - again).max() <= 2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_grey_keeps_its_profile_for_another_reader(suffix: str, dtype: type) -> None:
    metadata = Metadata(icc=GREY, dpi=(300, 150))
    shown = _seen(encode(Picture(noise(dtype=dtype), None, metadata), suffix, "a"))
    assert shown.bands == 1
    assert shown.get("icc-profile-data") == GREY
    assert [shown.xres * MILLIMETRES, shown.yres * MILLIMETRES] == pytest.approx(
        (300, 150), rel=0.01
    )
