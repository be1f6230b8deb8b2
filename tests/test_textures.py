"""Targa and DirectDraw files, made by the book, and what is told of them."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from image_corpus import noise, saved, targa
from PIL import Image

from agsr.decode import decode
from agsr.errors import ImageError

CUBE, VOLUME = 0x200 | 0xFC00, 0x20_0000


def _dds(
    pixels: bytes,
    letters: bytes,
    *,
    size: tuple[int, int] = (4, 4),
    depth: int = 0,
    kinds: int = 0,
    more: bytes = b"",
) -> bytes:
    """A compressed DDS file by the book.

    Args:
        pixels: Blocks.
        letters: FourCC.
        size: Height and width.
        depth: Slices of a volume.
        kinds: ``dwCaps2``.
        more: The header of DX10.
    """
    pixel_format = struct.pack("<II4s5I", 32, 4, letters, 0, 0, 0, 0, 0)
    head = struct.pack("<7I44x", 124, 0x1007, *size, len(pixels), depth, 1) + pixel_format
    return b"DDS " + head + struct.pack("<5I", 0x1000, kinds, 0, 0, 0) + more + pixels


def _dx10(code: int, *, dimension: int = 3, flags: int = 0, members: int = 1) -> bytes:
    return struct.pack("<5I", code, dimension, flags, members, 0)


def _bc1(first: int, second: int, indices: int) -> bytes:
    return struct.pack("<HHI", first, second, indices)


RED_AND_BLUE = _bc1(0xF800, 0x001F, 0x5500_5500)
"""Rows of red and blue in turn; the first colour is the larger number: none is clear."""


def test_a_block_of_colours_is_decoded_by_the_book() -> None:
    picture = decode(_dds(RED_AND_BLUE, b"DXT1"), "a.dds")
    assert picture.alpha is None
    assert picture.pixels[:, 0].tolist() == [[255, 0, 0], [0, 0, 255]] * 2
    assert decode(_dds(RED_AND_BLUE, b"DX10", more=_dx10(71)), "a").alpha is None


def test_clear_pixels_of_a_block_are_clear() -> None:
    picture = decode(_dds(_bc1(0x001F, 0xF800, 0xFF00_0000), b"DXT1"), "a.dds")
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[255] * 4] * 3 + [[0] * 4]


def test_four_bits_of_alpha_are_decoded_by_the_book() -> None:
    levels = bytes(low | low + 1 << 4 for low in range(0, 16, 2))
    alpha = decode(_dds(levels + RED_AND_BLUE, b"DXT3"), "a.dds").alpha
    assert alpha is not None
    assert alpha.ravel().tolist() == [17 * level for level in range(16)]


@pytest.mark.parametrize(
    ("content", "count"),
    [
        (_dds(RED_AND_BLUE * 6, b"DXT1", kinds=CUBE), 6),
        (_dds(RED_AND_BLUE * 5, b"DXT1", kinds=VOLUME, depth=5), 5),
        (_dds(RED_AND_BLUE * 12, b"DX10", more=_dx10(71, flags=4, members=2)), 12),
        (_dds(RED_AND_BLUE * 3, b"DX10", more=_dx10(71, dimension=4), depth=3), 3),
    ],
)
def test_more_than_one_picture_is_told(
    content: bytes, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert decode(content, "sky.dds").pixels.shape == (4, 4, 3)
    assert caplog.messages == [f"sky.dds: holds {count} pictures; only the first is taken"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (_dds(bytes(16), b"DX10", more=_dx10(95)), "of floating-point light"),
        (_dds(bytes(16), b"DX10", more=_dx10(2)), "not read: .*; magick in.dds out.png"),
        (_dds(bytes(16), b"DXT2"), "not read: .*; magick in.dds out.png"),
        (_dds(RED_AND_BLUE[:5], b"DXT1"), "damaged or truncated"),
        (b"DDS " + bytes(9), "damaged or truncated"),
    ],
)
def test_what_can_not_be_read_is_told(content: bytes, told: str) -> None:
    with pytest.raises(ImageError, match=f"^a.dds: {told}"):
        decode(content, "a.dds")


@pytest.mark.parametrize(
    ("descriptor", "level", "kept"), [(0, 0, False), (8, 0, True), (0, 9, True)]
)
def test_alpha_that_only_fills_up_32_bits_is_left_out(
    descriptor: int, level: int, kept: bool
) -> None:
    samples = noise(4)
    samples[..., 3] = 0
    samples[0, 0, 3] = level
    picture = decode(targa(samples, 2, 32, descriptor), "a.TGA")
    assert (picture.alpha is not None) == kept
    assert np.array_equal(picture.pixels, samples[::-1, :, 2::-1])


def test_targa_is_known_by_its_name_alone() -> None:
    content = targa(noise(3), 2, 24, 0)
    assert decode(content, "a.tga").pixels.shape == (21, 18, 3)
    for name in ("a", "a.png", "a.dds"):
        with pytest.raises(ImageError, match="not an image, or truncated"):
            decode(content, name)
    png = saved(Image.fromarray(noise(3)), "PNG")
    assert np.array_equal(decode(png, "a.tga").pixels, noise(3))
