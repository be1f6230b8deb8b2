"""Textures of games: Targa and DirectDraw files, which Pillow decodes, and what it doesn't tell.

Sources: Truevision, *TGA File Format Specification*, version 2.0; Microsoft, *DDS file layout*.
"""

from __future__ import annotations

import logging
import struct
from dataclasses import replace
from pathlib import PurePath
from typing import Final

from agsr.errors import ImageError
from agsr.picture import Picture

TARGA: Final = "TGA"
DIRECT_DRAW: Final = "DDS"
"""Pillow's names."""

TARGA_ENDING: Final = ".tga"

_PIXEL_FORMAT, _DX10_HEADER = 84, 128  # bytes from the beginning of a DDS file
_CUBE, _VOLUME, _VOLUME_DX10, _CUBE_DX10 = 0x200, 0x20_0000, 4, 4
_PUNCHED_THROUGH: Final = frozenset({b"DXT1", 70, 71, 72})
"""Codes of BC1, whose colours may have one that is clear."""
_FLOATING: Final = frozenset({94, 95, 96})
"""Codes of BC6H."""

_log = logging.getLogger(__name__)


def is_targa(name: str) -> bool:
    """Whether a file is Targa, by its name: nothing in such a file says so."""
    return PurePath(name).suffix.lower() == TARGA_ENDING


def check_direct_draw(content: bytes, name: str) -> None:
    """Refuse what Pillow would cut off, and tell what is left out.

    Raises:
        ImageError: Its pixels are floating-point light.
    """
    if _code(content) in _FLOATING:
        raise ImageError(
            f"{name}: of floating-point light (BC6H); tone-map it to 16-bit PNG or TIFF"
        )
    if (count := _pictures(content)) > 1:
        _log.warning("%s: holds %d pictures; only the first is taken", name, count)


def without_unused_alpha(picture: Picture, kind: str, content: bytes) -> Picture:
    """A texture without the alpha that every pixel has for the sake of its size alone.

    In Targa of 32 bits, where the header counts no bits of alpha and all are zero; in BC1, where
    no pixel is clear.
    """
    alpha = picture.alpha
    if alpha is None:
        return picture
    if kind == TARGA:
        unused = content[17] & 0b1111 == 0 and not bool(alpha.any())
    else:
        unused = _code(content) in _PUNCHED_THROUGH and bool(alpha.all())
    return replace(picture, alpha=None) if unused else picture


def _code(content: bytes) -> bytes | int:
    """How a DDS file's pixels are stored: four letters, or a DXGI_FORMAT."""
    letters = content[_PIXEL_FORMAT : _PIXEL_FORMAT + 4]
    return _number(content, _DX10_HEADER) if letters == b"DX10" else letters


def _pictures(content: bytes) -> int:
    """Faces of a cube, slices of a volume, or members of an array."""
    depth, kinds = _number(content, 24), _number(content, 112)
    cube, volume, members = bool(kinds & _CUBE), bool(kinds & _VOLUME), 1
    if content[_PIXEL_FORMAT : _PIXEL_FORMAT + 4] == b"DX10":
        _, dimension, flags, members = struct.unpack_from("<4I", content, _DX10_HEADER)
        cube, volume = cube or bool(flags & _CUBE_DX10), volume or dimension == _VOLUME_DX10
    return depth if volume else max(members, 1) * (6 if cube else 1)


def _number(content: bytes, offset: int) -> int:
    return int.from_bytes(content[offset : offset + 4], "little")
