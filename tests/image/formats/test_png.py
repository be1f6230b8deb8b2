"""PNG files: what their pixels need is checked, what they do not need may be damaged."""

from __future__ import annotations

import io
import re
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import pyvips
from image_corpus import png
from PIL import Image
from stills import chunks_of, content_of, read_still, write_upscaled

from agsr.errors import ImageError
from agsr.image.decode import decode


@pytest.mark.parametrize("name", ["png8-badcrc-idat.png", "png16-badcrc-idat.png"])
def test_pixels_with_a_wrong_checksum_are_rejected_in_any_depth(name: str) -> None:
    with pytest.raises(ImageError, match="damaged: its chunk IDAT has a wrong checksum"):
        read_still(name)
    with pytest.raises(pyvips.Error):
        pyvips.Image.new_from_buffer(content_of(name), "", fail_on="error").avg()


@pytest.mark.parametrize(("name", "chunk"), [("iccp", "iCCP"), ("phys", "pHYs")])
@pytest.mark.parametrize("depth", [8, 16])
def test_what_pixels_do_not_need_may_be_damaged(
    name: str, chunk: str, depth: int, caplog: pytest.LogCaptureFixture
) -> None:
    content = content_of(f"png8-badcrc-{name}.png")
    shown = pyvips.Image.new_from_buffer(content, "").numpy()
    assert np.array_equal(read_still(f"png8-badcrc-{name}.png").pixels, shown)
    caplog.clear()
    if depth == 16:
        spoilt = bytearray(png(2, 16, False, (chunk.encode(), b"data")))
        spoilt[spoilt.index(chunk.encode()) + 8] ^= 1
        content = bytes(spoilt)
    assert decode(content, "a.png").pixels.dtype.itemsize * 8 == depth
    assert caplog.messages == [f"a.png: its chunk {chunk} has a wrong checksum and is ignored"]


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("cut", [1, 4])
@pytest.mark.parametrize("chunk", ["IEND", "tEXt"])
def test_what_pixels_do_not_need_may_be_cut_off(
    chunk: str, cut: int, depth: int, caplog: pytest.LogCaptureFixture
) -> None:
    whole = png(2, depth, False)
    text = b"\0\0\0\3tEXta\0b" + struct.pack(">I", zlib.crc32(b"tEXta\0b"))
    content = whole[:-cut] if chunk == "IEND" else (whole[:-12] + text)[:-cut]
    found = decode(content, "a.png").pixels
    assert np.array_equal(found, decode(whole, "a.png").pixels)
    assert caplog.messages == [f"a.png: its chunk {chunk} is cut off and is ignored"]


@pytest.mark.parametrize("depth", [8, 16])
def test_a_wrong_checksum_of_the_end_costs_nothing(
    depth: int, caplog: pytest.LogCaptureFixture
) -> None:
    whole = png(2, depth, False)
    found = decode(whole[:-1] + b"\0", "a.png").pixels
    assert np.array_equal(found, decode(whole, "a.png").pixels)
    assert caplog.messages == ["a.png: its chunk IEND has a wrong checksum and is ignored"]


_PNG_KINDS = [(0, 1), (0, 8), (0, 16), (2, 8), (2, 16), (3, 2), (3, 8), (4, 16), (6, 8), (6, 16)]


_ANIMATION = [
    *((chunk, which, "checksum") for chunk in ("acTL", "fcTL", "fdAT") for which in (0, -1)),
    *(("fcTL", -1, "cut"), ("fdAT", 0, "cut"), ("fdAT", -1, "cut")),
]


@pytest.mark.parametrize(("chunk", "which", "damage"), _ANIMATION)
def test_the_first_picture_does_not_need_the_animation(
    chunk: str, which: int, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    rng, stream = np.random.default_rng(0), io.BytesIO()
    frames = [Image.fromarray(rng.integers(0, 256, (8, 9, 3), np.uint8)) for _ in range(3)]
    frames[0].save(stream, "PNG", save_all=True, append_images=frames[1:])
    content = bytearray(stream.getvalue())
    place = [match.start() for match in re.finditer(chunk.encode(), content)][which]
    if damage == "checksum":
        content[place + 6] ^= 1
    else:
        del content[place + 8 :]
    assert np.array_equal(decode(bytes(content), "a.png").pixels, np.asarray(frames[0]))
    assert f"a.png: its chunk {chunk} " in caplog.text
    assert "is ignored" in caplog.text


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("kind", "depth"), _PNG_KINDS)
def test_a_missing_end_costs_a_warning_in_any_depth(
    kind: int, depth: int, interlaced: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Of its twelve bytes any may be missing, and so may all."""
    whole = png(kind, depth, interlaced)
    expected = decode(whole, "a.png").pixels
    for cut in range(1, 13):
        assert np.array_equal(decode(whole[:-cut], "a.png").pixels, expected)
    assert caplog.messages == ["a.png: its chunk IEND is cut off and is ignored"] * 12


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("kind", "depth"), _PNG_KINDS)
def test_a_file_cut_within_its_pixels_is_rejected_in_any_depth(
    kind: int, depth: int, interlaced: bool
) -> None:
    """The last four bytes of pixels are their checksum."""
    for cut in (13, 16, 17, 24):
        with pytest.raises(ImageError, match="truncated: its chunk IDAT"):
            decode(png(kind, depth, interlaced)[:-cut], "a.png")


@pytest.mark.parametrize("name", ["png8-itxt2MB.png", "png8-ztxt2MB.png", "png8-iccp2MB.png"])
def test_long_texts_and_profiles_are_read(name: str) -> None:
    picture = read_still(name)
    expected = _unpacked(content_of(name))
    assert max(map(len, expected.values())) > 2e6
    profile = expected.pop("iCCP", None)
    assert picture.metadata.icc == profile
    assert {text.keyword: text.text.encode() for text in picture.metadata.text} == expected
    written = _unpacked(write_upscaled(picture, ".png"))
    assert written.pop("iCCP", None) == profile
    assert written == expected


def _unpacked(content: bytes) -> dict[str, bytes]:
    """Texts by keyword, and the profile, as the PNG specification stores them."""
    found = dict[str, bytes]()
    for kind, data in chunks_of(content):
        keyword, _, rest = data.partition(b"\0")
        if kind == b"iCCP":
            found["iCCP"] = zlib.decompress(rest[1:])
        elif kind == b"zTXt":
            found[keyword.decode()] = zlib.decompress(rest[1:])
        elif kind == b"iTXt":
            text = rest[2:].split(b"\0", 2)[2]
            found[keyword.decode()] = zlib.decompress(text) if rest[0] else text
        elif kind == b"tEXt":
            found[keyword.decode()] = rest
    return found


def test_a_bomb_of_text_costs_the_text(caplog: pytest.LogCaptureFixture) -> None:
    bomb = b"a\0\0" + zlib.compress(bytes(1 << 27), 9)
    picture = decode(png(2, 8, False, (b"zTXt", bomb), (b"tEXt", b"b\0c")), "a.png")
    assert [text.text for text in picture.metadata.text] == ["c"]
    assert "a.png: with its chunk zTXt, text and profile exceed 64 MB" in caplog.text


@pytest.mark.parametrize("end", [b"", b"damaged"])
def test_many_bombs_of_text_cost_no_more_than_one(
    end: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    unpacked, unpacker_of = list[int](), zlib.decompressobj

    class Counted:
        def __init__(self) -> None:
            self._inner = unpacker_of()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def decompress(self, data: bytes, most: int) -> bytes:
            unpacked.append(most)
            return self._inner.decompress(data, most)

    monkeypatch.setattr(zlib, "decompressobj", Counted)
    monkeypatch.setattr("agsr.image.formats.png_chunks._MOST_TEXT", 1 << 21)
    packed = zlib.compress(bytes(1 << 22 if not end else 1 << 20), 9)
    bomb = b"a\0\0" + (packed[:-4] + b"none" if end else packed)
    decode(png(2, 8, False, *[(b"zTXt", bomb)] * 20), "a.png")
    assert sum(unpacked) <= (1 << 21) + (1 << 20)
    assert caplog.text.count("text and profile exceed") == 1
