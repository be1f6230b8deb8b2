"""TIFF files whose strips or tiles don't cover the picture, and values that look black."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
import pyvips
import tifffile
from conftest import PHOTO
from PIL import Image

from agsr.errors import ImageError
from agsr.image.decode import decode
from agsr.image.encode import encode
from agsr.image.formats.tiff_pages import check_pieces, open_tiff
from agsr.image.picture import Picture

_KINDS: dict[str, tuple[Any, int, dict[str, Any]]] = {
    "pillow": (np.uint8, 3, {"photometric": "rgb"}),
    "planes": (np.uint8, 3, {"photometric": "rgb", "planarconfig": "separate"}),
    "opencv": (np.uint16, 3, {"photometric": "rgb"}),
    "grey with alpha": (np.uint16, 2, {"photometric": "minisblack", "extrasamples": [2]}),
    "tifffile": (np.float32, 3, {"photometric": "rgb"}),
    "integers": (np.uint32, 1, {"photometric": "minisblack"}),
    "inks": (np.uint16, 4, {"photometric": "separated"}),
}
_LAYOUTS: dict[str, dict[str, Any]] = {
    "strips": {"rowsperstrip": 8},
    "packed strips": {"rowsperstrip": 8, "compression": "zlib"},
    "tiles": {"tile": (16, 16)},
    "packed tiles": {"tile": (16, 16), "compression": "zlib"},
}


def _file(kind: str, layout: str) -> bytes:
    dtype, samples, options = _KINDS[kind]
    white = 1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    pixels = np.full((40, 32, samples) if samples > 1 else (40, 32), white, dtype)
    if "planarconfig" in options:
        pixels = np.moveaxis(pixels, -1, 0)
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, **options, **_LAYOUTS[layout])
    return stream.getvalue()


def _broken(content: bytes, how: str) -> bytes:
    """The last strip or tile is not listed, has no place, or has no content; or all have none."""
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        tags = file.pages[0].tags
        offsets, lengths = tags.get(324) or tags[273], tags.get(325) or tags[279]
    changed = bytearray(content)
    if how == "missing":
        for tag in (offsets, lengths):
            struct.pack_into("<I", changed, tag.offset + 4, tag.count - 1)
        return bytes(changed)
    tag = offsets if how == "without a place" else lengths
    size = tag.valuebytecount // tag.count
    first = 0 if how == "all without content" else tag.count - 1
    start, stop = tag.valueoffset + first * size, tag.valueoffset + tag.count * size
    changed[start:stop] = bytes(stop - start)
    return bytes(changed)


@pytest.mark.parametrize("layout", _LAYOUTS)
@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize(
    "how", ["missing", "without a place", "without content", "all without content"]
)
def test_strips_and_tiles_that_are_not_there_are_no_black_pixels(
    how: str, kind: str, layout: str
) -> None:
    content = _file(kind, layout)
    assert decode(content, "a.tif").pixels.shape[:2] == (40, 32)
    with pytest.raises(ImageError, match="damaged or truncated"):
        decode(_broken(content, how), "a.tif")


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_jpeg_strip_that_is_cut_off_is_no_grey_picture(mode: str, share: float) -> None:
    stream = io.BytesIO()
    with Image.open(PHOTO) as photo:
        photo.convert(mode).resize((96, 80)).save(stream, "TIFF", compression="jpeg")
    content = stream.getvalue()
    assert decode(content, "a.tif").pixels.shape[:2] == (80, 96)
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        tags = file.pages[0].tags
        start, length = (int(tags[tag].value[-1]) for tag in (273, 279))
    kept = round(length * share)
    cut = content[: start + kept] + bytes(length - kept) + content[start + length :]
    with pytest.raises(ImageError, match="damaged or truncated"):
        decode(cut, "a.tif")


def _fax(compression: str, order: int, tiled: bool = False) -> bytes:
    """A page in several strips or tiles, by libvips, or in one strip, by Pillow."""
    with Image.open(PHOTO) as photo:
        page = photo.convert("1").resize((96, 80))
    if order == 2 or compression != "group4":
        stream = io.BytesIO()
        page.save(stream, "TIFF", compression=compression, tiffinfo={266: order})
        return stream.getvalue()
    grey = pyvips.Image.new_from_array(np.asarray(page).astype(np.uint8) * 255)
    tiles = {"tile": True, "tile_width": 64, "tile_height": 64} if tiled else {}
    written = grey.tiffsave_buffer(compression="ccittfax4", bitdepth=1, **tiles)
    assert isinstance(written, bytes)
    return written


@pytest.mark.parametrize("how", ["zeros", "all zeros", "shorter"])
@pytest.mark.parametrize(
    ("compression", "order", "tiled"),
    [
        ("group3", 1, False),
        ("group4", 1, False),
        ("group4", 1, True),
        ("group3", 2, False),
        ("group4", 2, False),
        ("tiff_ccitt", 1, False),
    ],
)
def test_a_fax_strip_that_is_cut_off_is_reported(
    compression: str, order: int, tiled: bool, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    content = _fax(compression, order, tiled)
    whole = decode(content, "a.tif").pixels
    assert whole.shape == (80, 96)
    assert np.array_equal(whole, pyvips.Image.new_from_buffer(content, "").numpy())
    assert not caplog.records
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        tags = file.pages[0].tags
        offsets, lengths = tags.get(324) or tags[273], tags.get(325) or tags[279]
        start, length = int(offsets.value[0]), int(lengths.value[0])
        code = {3: "<H", 4: "<I"}[int(lengths.dtype)]
    cut, half = bytearray(content), length // 2
    if "zeros" in how:
        half = 0 if how.startswith("all") else half
        cut[start + half : start + length] = bytes(length - half)
    else:
        struct.pack_into(code, cut, lengths.valueoffset, half)
    rejected = {("tiff_ccitt", "shorter", False), ("group4", "all zeros", False)}
    if (compression, how, tiled) in rejected:  # by libtiff itself
        with pytest.raises(ImageError, match="damaged or truncated"):
            decode(bytes(cut), "a.tif")
        return
    assert not np.array_equal(decode(bytes(cut), "a.tif").pixels, whole)
    expected = f"a.tif: 1 of {len(offsets.value)} strips or tiles lack the end of their fax data"
    assert caplog.messages == [f"{expected}; missing rows are white"]


def test_a_single_strip_needs_no_byte_count() -> None:
    """Its size follows from the picture's, as libtiff has it: some scanners write 0."""
    stream = io.BytesIO()
    tifffile.imwrite(stream, np.full((20, 30), 200, np.uint8), photometric="minisblack")
    content = _broken(stream.getvalue(), "without content")
    assert (decode(content, "a.tif").pixels == 200).all()
    assert (pyvips.Image.new_from_buffer(content, "").numpy() == 200).all()


def test_pieces_are_counted_per_plane() -> None:
    tiff = open_tiff(_file("planes", "tiles"))
    assert tiff is not None
    assert len(tiff.values(324)) == 3 * 3 * 2
    check_pieces(tiff)
    lacking = open_tiff(_broken(_file("planes", "tiles"), "missing"))
    assert lacking is not None
    with pytest.raises(ValueError, match="17 strips or tiles; expected 18"):
        check_pieces(lacking)


def _stored(pixels: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, photometric="minisblack", **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("dtype", "largest", "bits"),
    [(np.uint32, 255, 8), (np.uint32, 65535, 16), (np.uint16, 4095, 12), (np.uint16, 1000, 10)],
)
def test_values_at_the_bottom_of_their_range_are_reported(
    dtype: Any, largest: int, bits: int, caplog: pytest.LogCaptureFixture
) -> None:
    values = np.linspace(0, largest, 20 * 30).reshape(20, 30).astype(dtype)
    pixels = decode(_stored(values), "a.tif").pixels
    white = np.iinfo(dtype).max
    assert f"its largest value is {largest} of {white}, so it looks black" in caplog.text
    assert f"if it holds {bits}-bit values" in caplog.text
    assert np.array_equal(pixels, values >> (np.iinfo(dtype).bits - 16))  # as others read it


def _png(pixels: Any) -> bytes:
    return encode(Picture(pixels), ".png", "a.png")


def test_dark_values_of_png_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    decode(_png(np.full((20, 30, 3), 4095, np.uint16)), "a.png")
    assert "its largest value is 4095 of 65535" in caplog.text


@pytest.mark.parametrize("largest", [0, 4096, 65535])
def test_black_and_dark_pictures_are_not_reported(
    largest: int, caplog: pytest.LogCaptureFixture
) -> None:
    values = np.full((20, 30), largest, np.uint16)
    decode(_stored(values), "a.tif")
    decode(_png(values), "a.png")
    assert not caplog.records
