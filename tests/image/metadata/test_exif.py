"""EXIF blocks with odd, cut or unusual tags: only what can't be read is lost."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image
from stills import content_of, read_still, write_upscaled

from agsr.image.decode import decode
from agsr.image.encode import FORMATS
from agsr.image.metadata.exif import parse_exif


@pytest.mark.parametrize("suffix", [s for s in FORMATS if FORMATS[s].profile])
def test_text_of_exif_stays_byte_for_byte(suffix: str) -> None:
    written = write_upscaled(read_still("exif-text-utf8.jpg"), suffix)
    assert "Jörg é\0".encode() in written or "Jörg é".encode() in written


def _turned_by_pillow(name: str) -> Any:
    """Both files have orientation 6, to be turned clockwise."""
    with Image.open(io.BytesIO(content_of(name))) as image:
        assert image.size == (64, 48)
        return np.asarray(image.transpose(Image.Transpose.ROTATE_270))


def test_odd_tags_cost_neither_orientation_nor_the_others() -> None:
    picture = read_still("exif-width-rational.jpg")
    assert np.array_equal(picture.pixels, _turned_by_pillow("exif-width-rational.jpg"))
    block = parse_exif(decode(write_upscaled(picture, ".jpg"), "b").metadata.exif or b"")
    assert 256 not in block.main  # the width it named is no longer true
    assert block.details[0xA002].numbers(block.order) == (192,)
    with Image.open(io.BytesIO(write_upscaled(picture, ".jpg"))) as image:
        found = image.getexif()
    assert (found.get(274, 1), found.get_ifd(0x8769)[0xA002]) == (1, 192)


def test_a_block_that_is_cut_keeps_its_orientation(caplog: pytest.LogCaptureFixture) -> None:
    picture = read_still("exif-orientation-lost.jpg")
    assert np.array_equal(picture.pixels, _turned_by_pillow("exif-orientation-lost.jpg"))
    for suffix in (".jpg", ".png", ".webp"):
        with Image.open(io.BytesIO(write_upscaled(picture, suffix))) as image:
            assert (image.getexif().get(274, 1), image.getexif()[271]) == (1, "Canon")
    assert "its EXIF data is damaged; 7 tags are lost" in caplog.text


def _cut_block(order: str) -> bytes:
    """A maker beyond ASCII and orientation 6, then two tags whose values lie behind the end."""
    maker = "Jörg é\0".encode()
    rows = [
        struct.pack(order + "HHII", 271, 2, len(maker), 62),
        struct.pack(order + "HHIHH", 274, 3, 1, 6, 0),
        *(struct.pack(order + "HHII", tag, 2, 40, 5000) for tag in (270, 315)),
    ]
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "IH", 8, len(rows))
    return b"Exif\0\0" + head + b"".join(rows) + bytes(4) + maker


@pytest.mark.filterwarnings("ignore:Truncated File Read")  # by Pillow; commands silence it
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "HEIC"])
def test_a_cut_block_costs_its_cut_tags_in_every_format(
    kind: str, order: str, caplog: pytest.LogCaptureFixture
) -> None:
    pixels = np.zeros((24, 36, 3), np.uint8)
    pixels[:8, :8] = 255
    stream, image = io.BytesIO(), Image.fromarray(pixels)
    if kind == "HEIC":
        pillow_heif.from_pillow(image).save(stream, quality=95, exif=_cut_block(order))
    else:
        image.save(stream, kind, exif=_cut_block(order))
    picture = decode(stream.getvalue(), "a")
    assert picture.pixels.shape == (36, 24, 3)
    assert picture.pixels[:6, -6:].mean() > 200  # turned clockwise
    assert caplog.messages == ["a: its EXIF data is damaged; 2 tags are lost"]
    assert "Jörg é\0".encode() in write_upscaled(picture, ".jpg")


def test_a_maker_note_stays_where_it_is() -> None:
    """Some cameras count places inside of it from the beginning of the block."""
    exif = Image.Exif()
    exif[271] = "Maker"
    exif.get_ifd(0x8769)[0x927C] = b"note" * 20
    stream = io.BytesIO()
    Image.new("RGB", (16, 12)).save(stream, "JPEG", exif=exif)
    before = exif.tobytes()
    kept = decode(stream.getvalue(), "a.jpg").metadata.for_size(48, 64).exif
    assert kept is not None
    assert kept.index(b"notenote") == before.index(b"notenote")
