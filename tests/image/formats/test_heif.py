"""HEIC: which picture of a file is read, and what its own turns make of what EXIF and XMP say."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from agsr.image.decode import decode
from agsr.image.encode import encode
from agsr.image.formats.heif import _resolve_turned
from agsr.image.metadata.boxes import BoxProperties, read_boxes
from agsr.image.metadata.exif import parse_exif
from agsr.image.metadata.stored import StoredMetadata
from agsr.image.picture import Picture

_SUBJECT, _X, _FOCAL_X, _FOCAL_Y = 0x9214, 0xA002, 0xA20E, 0xA20F
_REGIONS = "http://www.metadataworkinggroup.com/schemas/regions/"


def _exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    exif[0x8769] = {
        _SUBJECT: (5, 6),
        _X: 36,
        _FOCAL_X: IFDRational(100),
        _FOCAL_Y: IFDRational(200),
    }
    return exif.tobytes()


def _heic(*pictures: Image.Image, **options: Any) -> bytes:
    stream, file = io.BytesIO(), pillow_heif.HeifFile()
    for picture in pictures:
        file.add_from_pillow(picture)
    file.save(stream, quality=-1, **options)
    return stream.getvalue()


def _stored(orientation: int) -> bytes:
    """36x24 pixels; pillow-heif writes the orientation as properties of the picture."""
    picture = Image.new("RGB", (36, 24), (200, 0, 0))
    xmp = f'<x xmlns:r="{_REGIONS}" r:Name="face"/>'.encode()
    return _heic(picture, exif=_exif(orientation), xmp=xmp)


@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
def test_places_of_a_turned_picture_are_removed(
    orientation: int, caplog: pytest.LogCaptureFixture
) -> None:
    content = _stored(orientation)
    facts = read_boxes(content)
    assert facts.quarters or facts.mirrored
    picture = decode(content, "a.heic")
    assert picture.metadata.exif is not None
    details = parse_exif(picture.metadata.exif).details
    assert _SUBJECT not in details
    assert picture.metadata.xmp is not None
    assert b"face" not in picture.metadata.xmp
    assert "lacks its XMP of places in the picture" in caplog.text
    assert picture.metadata.size == picture.pixels.shape[:2]


@pytest.mark.parametrize(("corner", "moved"), [((6, 4), True), ((0, 0), False)])
def test_places_of_a_picture_that_is_cropped_from_its_corner_are_removed(
    corner: tuple[int, int], moved: bool
) -> None:
    xmp = f'<x xmlns:r="{_REGIONS}" r:Name="face"/>'.encode()
    properties = BoxProperties(crop=(*corner, 8, 6))
    found = _resolve_turned(StoredMetadata(xmp=xmp), properties, (8, 6), "a.heic")
    assert (b"face" in (found.xmp or b"")) is not moved


@pytest.mark.parametrize(
    ("orientation", "expected"), [(1, (100, 200)), (3, (100, 200)), (6, (200, 100))]
)
def test_sides_of_a_turned_picture_are_exchanged(
    orientation: int, expected: tuple[int, int]
) -> None:
    picture = decode(_stored(orientation), "a.heic")
    pixels = picture.pixels.repeat(2, 0).repeat(2, 1)
    large = Picture(pixels, None, picture.metadata.for_size(*pixels.shape[:2]))
    with Image.open(io.BytesIO(encode(large, ".jpg", "a.jpg"))) as image:
        details = image.getexif().get_ifd(0x8769)
        assert (details[_FOCAL_X], details[_FOCAL_Y]) == tuple(2 * value for value in expected)
        assert details[_X] == image.width == (48 if orientation == 6 else 72)
        assert image.getexif()[274] == 1


def test_places_of_an_upright_picture_stay() -> None:
    picture = decode(_stored(1), "a.heic")
    assert picture.metadata.exif is not None
    assert _SUBJECT in parse_exif(picture.metadata.exif).details
    assert picture.metadata.xmp is not None
    assert b"face" in picture.metadata.xmp


@pytest.mark.parametrize("primary", [0, 1, 2])
def test_the_main_picture_is_read_with_its_own_exif(
    primary: int, caplog: pytest.LogCaptureFixture
) -> None:
    pictures = [Image.new("RGB", (64 + 16 * n, 32), (40 * n, 0, 0)) for n in range(3)]
    for number, picture in enumerate(pictures):
        exif = Image.Exif()
        exif[271] = f"camera {number}"
        picture.info["exif"] = exif.tobytes()
    picture = decode(_heic(*pictures, primary_index=primary), "a.heic")
    assert picture.pixels.shape == (32, 64 + 16 * primary, 3)
    assert np.abs(picture.pixels[0, 0].astype(int) - (40 * primary, 0, 0)).max() <= 3
    assert picture.metadata.exif is not None
    assert f"camera {primary}".encode() in picture.metadata.exif
    used = "main one" if primary else "first"
    assert f"a.heic: holds 3 pictures; only the {used} is used" in caplog.text


def test_a_crop_of_avif_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """By a box that Pillow does not apply, put where one lies that it does not need."""
    stream = io.BytesIO()
    picture = Image.new("RGB", (16, 16), (9, 99, 9))
    picture.save(stream, "AVIF", exif=_exif(1))
    content = stream.getvalue()
    assert decode(content, "a.avif").pixels.shape == (16, 16, 3)
    assert not caplog.records
    cropped = _with_crop(content, (8, 6), (2, -1))
    assert decode(cropped, "a.avif").pixels.shape == (16, 16, 3)
    assert "lacks its crop to 8x6 pixels from 6,4 on" in caplog.text


def _kinds(content: bytes | bytearray) -> list[bytes]:
    """Kinds of the properties in a file."""
    place, found = content.index(b"ipco") + 4, list[bytes]()
    while (kind := bytes(content[place + 4 : place + 8])) != b"ipma":
        found.append(kind)
        place += struct.unpack_from(">I", content, place)[0]
    return found


def _with_crop(content: bytes, size: tuple[int, int], shift: tuple[int, int]) -> bytes:
    """Replace the code points of a picture by a crop; all that lies behind moves."""
    old = content.index(b"colr") - 4
    (length,) = struct.unpack_from(">I", content, old)
    numbers = [n for value in (*size, *shift) for n in (value, 1)]
    crop = struct.pack(">I4s", 40, b"clap") + struct.pack(">IIIIiIiI", *numbers)
    longer = 40 - length
    changed = bytearray(content[:old] + crop + content[old + length :])
    for kind in (b"meta", b"iprp", b"ipco"):
        place = changed.index(kind) - 4
        (size_,) = struct.unpack_from(">I", changed, place)
        struct.pack_into(">I", changed, place, size_ + longer)
    number = _kinds(changed).index(b"clap") + 1
    links = changed.index(b"ipma")
    changed[changed.index(bytes([number]), links + 15)] |= 0x80  # essential, as turns are
    place = changed.index(b"iloc") + 4
    assert changed[place] == 0  # version, by which an item has one extent of 4 + 4 bytes here
    assert changed[place + 4 : place + 6] == b"\x44\0"
    for item in range(struct.unpack_from(">H", changed, place + 6)[0]):
        start = place + 8 + 14 * item + 6
        (offset,) = struct.unpack_from(">I", changed, start)
        struct.pack_into(">I", changed, start, offset + longer)
    return bytes(changed)
