"""Read TGA files, including those that Pillow misreads.

Source: Truevision, *TGA File Format Specification*, version 2.0.
"""

from __future__ import annotations

import io
import struct
from dataclasses import replace
from typing import Final

from PIL import Image

from agsr.image.formats.signatures import TGA
from agsr.image.metadata import Metadata
from agsr.image.picture import Picture
from agsr.image.pillow_io import from_pillow

_HEADER: Final = struct.Struct("<BBBHHBHHHHBB")
_RUNS = 8
"""Bit of the image type that marks run-length encoding."""


def read_tga(image: Image.Image, content: bytes, metadata: Metadata, name: str) -> Picture:
    """Decode a TGA file that Pillow has opened.

    Pillow rejects runs that span rows, which version 1 allowed, and palettes in true-colour files;
    such files are rewritten first.
    """
    try:
        image.load()
    except (OSError, ValueError):
        image = Image.open(io.BytesIO(_plain(content)), formats=[TGA])
        image.load()
    return _without_unused_alpha(from_pillow(image, metadata, name), content)


def _plain(content: bytes) -> bytes:
    """Return the file without run-length encoding and unused palette.

    Raises:
        IndexError, ValueError: The file is truncated.
    """
    ident, palette, kind, _, entries, entry_bits, _, _, width, height, bits, _ = _HEADER.unpack(
        content[: _HEADER.size]
    )
    size, count = (bits + 7) // 8, width * height
    map_start = _HEADER.size + ident
    place = map_start + (entries * ((entry_bits + 7) // 8) if palette else 0)
    if kind & _RUNS:
        pixels = bytearray()
        while len(pixels) < count * size:
            packet = content[place]
            number = (packet & 0x7F) + 1
            stored = size if packet & 0x80 else number * size
            pixels += content[place + 1 : place + 1 + stored] * (number * size // stored)
            place += 1 + stored
    else:
        pixels = bytearray(content[place:])
    if len(pixels) < count * size:
        raise ValueError("truncated")
    head = bytearray(content[: _HEADER.size])
    head[0], head[2] = 0, kind & ~_RUNS
    needed = content[map_start:][: entries * ((entry_bits + 7) // 8)] if kind & 7 == 1 else b""
    if not needed:
        head[1], head[3:8] = 0, bytes(5)
    return bytes(head) + needed + bytes(pixels[: count * size])


def _without_unused_alpha(picture: Picture, content: bytes) -> Picture:
    """Remove alpha bits that are only padding.

    The header counts the alpha bits. Some programs declare none but write alpha, so it is removed
    only if constant and undeclared, or all clear in 16-bit files.
    """
    alpha = picture.alpha
    if alpha is None or (alpha != alpha.flat[0]).any():
        return picture
    counted, depth = content[17] & 0b1111, content[16]
    unused = not counted or (depth == 16 and not alpha.flat[0])
    return replace(picture, alpha=None) if unused else picture
