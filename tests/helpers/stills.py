"""The files of tests/stills, and what is read of them."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from conftest import ROOT

from agsr.image.decode import decode
from agsr.image.encode import encode
from agsr.image.picture import Picture

STILLS = ROOT / "tests/stills"


def content_of(name: str) -> bytes:
    return (STILLS / name).read_bytes()


def read_still(name: str) -> Picture:
    return decode(content_of(name), name)


def write_upscaled(picture: Picture, suffix: str) -> bytes:
    height, width = (side * 4 for side in picture.pixels.shape[:2])
    large = picture.pixels.repeat(4, axis=0).repeat(4, axis=1)
    assert large.shape[:2] == (height, width)
    return encode(Picture(large, None, picture.metadata), suffix, f"b{suffix}")


def chunks_of(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 8
    while place < len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        yield kind, content[place + 8 : place + 8 + length]
        place += 12 + length
