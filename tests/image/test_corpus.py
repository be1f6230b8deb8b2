"""Files of every kind beside what libvips makes of them, which has its own loaders.

BMP it does not read, nor two kinds of TIFF, nor textures: there OpenCV is the judge, which decodes
only 16 bits for us, or what was written.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import pyvips
from image_corpus import UNREADABLE, noise, ramp, whole_files
from numpy.typing import NDArray

from agsr.errors import ImageError
from agsr.image.decode import decode

WHOLE = whole_files()
AS_WRITTEN = ("zstd.tif", "lzma.tif", "moving.avif")
TEXTURES = tuple(name for name in WHOLE if name.endswith((".tga", ".dds")))
TOLERANCE = {".jpg": 1, ".jpeg": 1, ".avif": 3, ".bmp": 7}
"""Levels by suffix where decoders round in their own way; OpenCV fills five bits up with zeros."""


@pytest.mark.parametrize("name", sorted(set(WHOLE) - {*UNREADABLE, *AS_WRITTEN, *TEXTURES}))
def test_every_kind_of_file_is_decoded_as_another_decoder_does(name: str) -> None:
    found = decode(WHOLE[name], name)
    pixels, alpha = _judged(name)
    assert found.pixels.dtype == pixels.dtype
    seen = np.ones(pixels.shape[:2], bool) if alpha is None else alpha > 0
    difference = np.abs(_colour(found.pixels).astype(int) - _colour(pixels))[seen]
    assert difference.max() <= TOLERANCE.get(name[name.rindex(".") :], 1)
    if found.alpha is None:
        assert alpha is None or name == "unspecified.tif" or alpha.min() == 255
    else:
        assert np.array_equal(found.alpha, alpha)


@pytest.mark.parametrize("name", AS_WRITTEN)
def test_what_no_other_decoder_reads_is_decoded_as_it_was_written(name: str) -> None:
    difference = np.abs(decode(WHOLE[name], name).pixels.astype(int) - noise(3))
    assert difference.mean() <= (3 if name.endswith("avif") else 0)


@pytest.mark.parametrize("name", [n for n in TEXTURES if "ours" not in n])
def test_textures_are_decoded_as_they_were_written(name: str) -> None:
    """What we write is compared in `test_round_trips`."""
    found = decode(WHOLE[name], name)
    pixels = found.pixels.reshape(*found.pixels.shape[:2], -1)
    if found.alpha is not None:
        pixels = np.dstack([pixels, found.alpha])
    channels = pixels.shape[2]
    written = noise()[..., None] if channels == 1 else noise(channels)
    in_blocks = name.startswith(("DXT", "BC"))
    if in_blocks:
        written = ramp(channels)
    difference = np.abs(pixels.astype(int) - written)
    if name == "BC5.dds":  # two channels, for normals
        assert not pixels[..., 2].any()
        difference = difference[..., :2]
    assert difference.max() <= (17 if in_blocks else 0)  # they keep four levels, of five bits


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_not_read_is_rejected(name: str) -> None:
    with pytest.raises(ImageError, match="floating-point samples from 1 to 254; expected 0 to 1"):
        decode(WHOLE[name], name)


def _colour(pixels: NDArray[Any]) -> NDArray[Any]:
    return np.broadcast_to(pixels.reshape(*pixels.shape[:2], -1), (*pixels.shape[:2], 3))


def _judged(name: str) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Colour or grey, and alpha, upright, as the other decoder has them."""
    if name.endswith(".bmp"):
        content = np.frombuffer(WHOLE[name], np.uint8)
        return cv2.imdecode(content, cv2.IMREAD_COLOR)[..., ::-1], None
    image = pyvips.Image.new_from_buffer(WHOLE[name], "").autorot()
    planes = image.numpy()
    planes = planes if planes.ndim == 3 else planes[..., None]
    if image.interpretation == "cmyk":  # without a profile: what the inks leave of white
        light = 255 - planes.astype(int)
        return (light[..., :3] * light[..., 3:] / 255).round().astype(np.uint8), None
    if image.hasalpha():
        return planes[..., :-1], planes[..., -1]
    return planes, None
