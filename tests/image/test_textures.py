"""TGA and DDS files, built by the specification, and the warnings about them."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from image_corpus import noise, saved, targa
from numpy.typing import NDArray
from PIL import Image

from agsr.errors import ImageError
from agsr.image.decode import decode

CUBE, VOLUME = 0x200 | 0xFC00, 0x20_0000


def _dds(
    pixels: bytes,
    letters: bytes,
    *,
    size: tuple[int, int] = (4, 4),
    depth: int = 0,
    kinds: int = 0,
    more: bytes = b"",
    plain: tuple[int, int, tuple[int, ...]] | None = None,
) -> bytes:
    """A DDS file by the book.

    Args:
        pixels: Blocks, or plain ones.
        letters: FourCC.
        size: Height and width.
        depth: Slices of a volume.
        kinds: ``dwCaps2``.
        more: The header of DX10.
        plain: Flags, bits of a pixel and masks of its channels, in the older header.
    """
    flags, bits, masks = plain or (4, 0, (0, 0, 0, 0))
    pixel_format = struct.pack("<II4s5I", 32, flags, letters, bits, *masks)
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
def test_more_than_one_picture_is_reported(
    content: bytes, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert decode(content, "sky.dds").pixels.shape == (4, 4, 3)
    assert caplog.messages == [f"sky.dds: holds {count} pictures; only the first is used"]


@pytest.mark.parametrize(
    ("content", "reported"),
    [
        (_dds(bytes(16), b"DX10", more=_dx10(95)), "floating-point HDR"),
        (
            _dds(bytes(16), b"DX10", more=_dx10(2)),
            "unsupported texture format DXGI_FORMAT 2; convert it: tex",
        ),
        (_dds(bytes(16), b"DXT2"), "unsupported texture format 'DXT2'; convert it: texconv"),
        (
            _dds(bytes(16), b"\x6f\0\0\0"),
            "unsupported texture format D3DFORMAT 111; convert it: texconv",
        ),
        (_dds(RED_AND_BLUE[:5], b"DXT1"), "damaged or truncated"),
        (_dds(bytes(63), b"DX10", more=_dx10(87)), "damaged or truncated"),
        (_dds(b"", b"DX10", more=_dx10(87), size=(0, 4)), "damaged or truncated"),
        (b"DDS " + bytes(9), "damaged or truncated"),
    ],
)
def test_what_can_not_be_read_is_reported(content: bytes, reported: str) -> None:
    with pytest.raises(ImageError, match=f"^a.dds: {reported}"):
        decode(content, "a.dds")


@pytest.mark.parametrize(
    ("code", "size"), [(72, 8), (75, 16), (78, 16), (71, 8), (74, 16), (77, 16)]
)
def test_colours_of_blocks_in_srgb_are_the_same_bytes(code: int, size: int) -> None:
    blocks = bytes(size - 8) + RED_AND_BLUE
    found = decode(_dds(blocks, b"DX10", more=_dx10(code)), "a.dds").pixels
    assert found[:, 0].tolist() == [[255, 0, 0], [0, 0, 255]] * 2


@pytest.mark.parametrize("code", [80, 83, 98, 99])
def test_other_blocks_that_the_readme_names_are_decoded(code: int) -> None:
    assert decode(_dds(bytes(16), b"DX10", more=_dx10(code)), "a.dds").pixels.shape[:2] == (4, 4)


@pytest.mark.parametrize(
    ("code", "order"),
    [
        (28, (0, 1, 2, 3)),
        (29, (0, 1, 2, 3)),
        (87, (2, 1, 0, 3)),
        (91, (2, 1, 0, 3)),
        (93, (2, 1, 0)),
    ],
)
def test_plain_channels_are_taken_apart(code: int, order: tuple[int, ...]) -> None:
    stored = noise(4)
    content = _dds(stored.tobytes(), b"DX10", size=stored.shape[:2], more=_dx10(code))
    picture = decode(content, "a.dds")
    assert np.array_equal(picture.pixels, stored[..., order[:3]])
    assert (picture.alpha is not None) == (len(order) == 4)
    if picture.alpha is not None:
        assert np.array_equal(picture.alpha, stored[..., 3])


def test_few_bits_are_spread_over_all_levels() -> None:
    masks = (0xF800, 0x07E0, 0x001F, 0)
    stored = np.array([0xFFFF, 0xF800, 0x0400, 0x0001], "<u2")
    picture = decode(_dds(stored.tobytes(), b"", size=(1, 4), plain=(0x40, 16, masks)), "a.dds")
    assert picture.pixels[0].tolist() == [[255, 255, 255], [255, 0, 0], [0, 130, 0], [0, 0, 8]]


@pytest.mark.parametrize(("letters", "more"), [(b"DX10", _dx10(11)), (struct.pack("<I", 36), b"")])
def test_colours_keep_their_16_bits(letters: bytes, more: bytes) -> None:
    stored = noise(4, dtype=np.uint16)
    content = _dds(stored.tobytes(), letters, size=stored.shape[:2], more=more)
    picture = decode(content, "a.dds")
    assert picture.alpha is not None
    assert np.array_equal(np.dstack([picture.pixels, picture.alpha]), stored)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_two_channels_are_red_and_green(dtype: type) -> None:
    stored = noise(2, dtype=dtype)
    bits, code = (8, 49) if dtype is np.uint8 else (16, 35)
    masks = ((1 << bits) - 1, (1 << bits) - 1 << bits, 0, 0)
    newer = _dds(stored.tobytes(), b"DX10", size=stored.shape[:2], more=_dx10(code))
    older = _dds(stored.tobytes(), b"", size=stored.shape[:2], plain=(0x40, 2 * bits, masks))
    for content in (newer, older):
        picture = decode(content, "a.dds")
        assert picture.pixels.dtype == dtype
        assert np.array_equal(picture.pixels[..., :2], stored)
        assert not picture.pixels[..., 2].any()


def test_signed_channels_are_levels_as_normal_maps_have_them() -> None:
    stored = np.array([[[0, 127], [-127, -128], [64, -1]]], np.int8)
    newer = _dds(stored.tobytes(), b"DX10", size=(1, 3), more=_dx10(51))
    older = _dds(stored.tobytes(), b"", size=(1, 3), plain=(0x80000, 16, (0xFF, 0xFF00, 0, 0)))
    for content in (newer, older):
        levels = decode(content, "a.dds").pixels[0, :, :2].tolist()
        assert levels == [[128, 255], [0, 0], [192, 126]]
    deep = np.array([[[0, 32767], [-32767, -32768]]], np.int16)
    picture = decode(_dds(deep.tobytes(), b"DX10", size=(1, 2), more=_dx10(37)), "a.dds")
    assert picture.pixels[0, :, :2].tolist() == [[32768, 65535], [0, 0]]


def test_alpha_alone_is_grey_and_beside_grey_is_alpha() -> None:
    alone, both = noise(), noise(2)
    contents = [
        _dds(alone.tobytes(), b"DX10", size=alone.shape, more=_dx10(65)),
        _dds(alone.tobytes(), b"", size=alone.shape, plain=(0x2, 8, (0, 0, 0, 0xFF))),
    ]
    for content in contents:
        assert np.array_equal(decode(content, "a.dds").pixels, alone)
    masks = (0xFF, 0, 0, 0xFF00)
    content = _dds(both.tobytes(), b"", size=both.shape[:2], plain=(0x20001, 16, masks))
    picture = decode(content, "a.dds")
    assert picture.alpha is not None
    assert np.array_equal(np.dstack([picture.pixels, picture.alpha]), both)


def test_ten_bits_become_sixteen() -> None:
    stored = np.array([[0x3FF | 0x200 << 10 | 1 << 20 | 3 << 30]], "<u4")
    picture = decode(_dds(stored.tobytes(), b"DX10", size=(1, 1), more=_dx10(24)), "a.dds")
    assert picture.pixels.tolist() == [[[65535, 32800, 64]]]
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[65535]]


@pytest.mark.parametrize("newer", [False, True])
def test_height_maps_keep_their_16_bits(newer: bool) -> None:
    stored = noise(dtype=np.uint16)
    plain = (0x20000, 16, (0xFFFF, 0, 0, 0))
    letters, more = (b"DX10", _dx10(56)) if newer else (b"", b"")
    content = _dds(
        stored.tobytes(), letters, size=stored.shape, more=more, plain=None if newer else plain
    )
    picture = decode(content, "a.dds")
    assert picture.pixels.dtype == np.uint16
    assert np.array_equal(picture.pixels, stored)


@pytest.mark.parametrize(
    ("descriptor", "levels", "kept"),
    [
        (0, (0, 0), False),
        (0, (255, 255), False),
        (0, (0, 9), True),  # some programs forget to count them
        (8, (0, 0), True),
        (8, (255, 255), True),
    ],
)
def test_alpha_that_only_fills_up_pixels_is_dropped(
    descriptor: int, levels: tuple[int, int], kept: bool
) -> None:
    samples = noise(4)
    samples[..., 3] = levels[0]
    samples[0, 0, 3] = levels[1]
    picture = decode(targa(samples, 2, 32, descriptor), "a.TGA")
    assert (picture.alpha is not None) == kept
    assert np.array_equal(picture.pixels, samples[::-1, :, 2::-1])


@pytest.mark.parametrize("descriptor", [0, 1])
@pytest.mark.parametrize("top", [0, 0x8000])
def test_targa_of_five_bits_is_opaque(descriptor: int, top: int) -> None:
    stored = np.array([[0x7C00, 0x03E0], [0x001F, 0x7FFF]], np.uint16) | np.uint16(top)
    content = targa(stored[..., None].view(np.uint8), 2, 16, descriptor | 0x20)
    picture = decode(content, "a.tga")
    assert picture.pixels.tolist() == [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255] * 3]]
    assert picture.alpha is None or picture.alpha.all()


def _runs(samples: NDArray[np.uint8], longest: int) -> bytes:
    """Packets of equal and of other pixels by turns, regardless of rows."""
    flat = samples.reshape(-1, samples.shape[2])
    packets, place = b"", 0
    while place < len(flat):
        part = flat[place : place + longest]
        alike = int((part == part[0]).all(axis=1).cumprod().sum())
        if alike > 1:
            packets += bytes([0x80 | alike - 1]) + part[0].tobytes()
            place += alike
        else:
            packets += bytes([len(part) - 1]) + part.tobytes()
            place += len(part)
    return packets


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_runs_may_go_on_in_the_next_row(channels: int) -> None:
    samples = noise(channels).reshape(21, 18, channels)
    samples[5:7] = samples[5, 0]
    head = targa(samples, {1: 11}.get(channels, 10), 8 * channels, 0x20)[:18]
    content = head + _runs(samples, 50)
    picture = decode(content, "a.tga")
    found = picture.pixels.reshape(21, 18, -1)
    assert np.array_equal(found, samples[..., 2::-1] if channels > 1 else samples)
    with pytest.raises(ImageError, match="damaged or truncated"):
        decode(content[:-9], "a.tga")


def test_a_palette_beside_colours_is_not_needed() -> None:
    samples = noise(3)
    content = bytearray(targa(samples, 2, 24, 0x20))
    content[1], content[5:8] = 1, bytes([4, 0, 24])
    content[18:18] = bytes(12)
    assert np.array_equal(decode(bytes(content), "a.tga").pixels, samples[..., ::-1])


def test_targa_of_version_2_is_known_by_its_end() -> None:
    content = saved(Image.fromarray(noise(3)), "TGA")
    assert np.array_equal(decode(content, "-").pixels, noise(3))


def test_other_targa_is_known_by_its_name_alone() -> None:
    content = targa(noise(3), 2, 24, 0)
    assert decode(content, "a.tga").pixels.shape == (21, 18, 3)
    for name in ("-", "a.png", "a.dds"):
        with pytest.raises(ImageError, match=r"not an image, .* AVIF DDS, or TGA named \.tga$"):
            decode(content, name)
    png = saved(Image.fromarray(noise(3)), "PNG")
    assert np.array_equal(decode(png, "a.tga").pixels, noise(3))
