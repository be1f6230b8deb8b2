"""Textures of games: DirectDraw files, and what Targa files leave unsaid.

Pillow decodes blocks; plain pixels are decoded here, since it takes a second per megapixel for them
and knows only some of their names.

Sources: Microsoft, *DDS file layout* and *DXGI_FORMAT*; Truevision, *TGA File Format
Specification*, version 2.0.
"""

from __future__ import annotations

import io
import logging
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agsr.errors import ImageError
from agsr.metadata import Metadata
from agsr.picture import Picture, Pixels
from agsr.pillow import from_pillow

TARGA: Final = "TGA"
DIRECT_DRAW: Final = "DDS"
"""Pillow's names."""

TARGA_ENDING: Final = ".tga"

_TARGA: Final = struct.Struct("<BBBHHBHHHHBB")
_TARGA_END: Final = b"TRUEVISION-XFILE.\0"
_RUNS = 8
"""Bit of a Targa file's kind."""

_MAGIC: Final = b"DDS "
_HEADER: Final = struct.Struct("<4x 6I 52x I 4s I 4I 4x I 12x")
_MORE: Final = struct.Struct("<5I")
"""Behind the header, where its letters are DX10."""

_HAS_ALPHA, _HAS_LETTERS, _IS_RGB, _IS_GREY = 0x1, 0x4, 0x40, 0x2_0000  # of a pixel format
_CUBE, _VOLUME, _CUBE_DX10, _VOLUME_DX10 = 0x200, 0x20_0000, 4, 4

_RGBA: Final = (0xFF, 0xFF00, 0xFF_0000, 0xFF00_0000)
_BGRA: Final = (0xFF_0000, 0xFF00, 0xFF, 0xFF00_0000)
_PLAIN: Final[dict[int, tuple[int, tuple[int, ...]]]] = {
    **dict.fromkeys((27, 28, 29), (32, _RGBA)),
    **dict.fromkeys((87, 90, 91), (32, _BGRA)),
    **dict.fromkeys((88, 92, 93), (32, _BGRA[:3])),
    **dict.fromkeys((60, 61), (8, (0xFF,))),
    56: (16, (0xFFFF,)),
}
"""By DXGI_FORMAT, bits of a pixel and of its channels."""

_SAME_BYTES: Final = {72: 71, 75: 74, 78: 77}
"""BC1 to BC3 in sRGB, and the names by which Pillow knows them."""

_BC1: Final = (b"DXT1", 70, 71, 72)
_BC6H: Final = (94, 95, 96)

_ROWS = 256
"""Decoded at a time, for the sake of memory."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Surface:
    """What the header of a DDS file says."""

    height: int
    width: int
    kind: bytes | int
    """Four letters, or a DXGI_FORMAT; neither counts where there are channels."""
    bits: int
    """Of a pixel, where there are channels."""
    channels: tuple[int, ...]
    """Masks of red, green, blue and alpha, of grey, or none: blocks, or what is not read."""
    start: int
    """Of the pixels, in bytes."""
    pictures: int
    """Faces of a cube, slices of a volume, members of an array."""


def is_targa(name: str, content: bytes = b"") -> bool:
    """Whether a file is Targa, by its name, or by the end that version 2 gave it."""
    return PurePath(name).suffix.lower() == TARGA_ENDING or content.endswith(_TARGA_END)


def load_targa(image: Image.Image, content: bytes) -> Image.Image:
    """Decode a Targa file that Pillow has opened, and what Pillow takes for damaged.

    Such are runs that go on in the next row, as version 1 allowed, and palettes beside colours.
    """
    try:
        image.load()
    except (OSError, ValueError):
        image = Image.open(io.BytesIO(_plain_targa(content)), formats=[TARGA])
        image.load()
    return image


def _plain_targa(content: bytes) -> bytes:
    """The file without runs and without a palette that colours don't need.

    Raises:
        IndexError, ValueError: It is truncated.
    """
    ident, palette, kind, _, entries, entry_bits, _, _, width, height, bits, _ = _TARGA.unpack(
        content[: _TARGA.size]
    )
    size, count = (bits + 7) // 8, width * height
    map_start = _TARGA.size + ident
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
    head = bytearray(content[: _TARGA.size])
    head[0], head[2] = 0, kind & ~_RUNS
    needed = content[map_start:][: entries * ((entry_bits + 7) // 8)] if kind & 7 == 1 else b""
    if not needed:
        head[1], head[3:8] = 0, bytes(5)
    return bytes(head) + needed + bytes(pixels[: count * size])


def is_direct_draw(content: bytes) -> bool:
    """Whether a file is DirectDraw."""
    return content.startswith(_MAGIC)


def without_unused_alpha(picture: Picture, content: bytes) -> Picture:
    """What a Targa file shows, without bits of alpha that only fill up its pixels.

    Its header counts the bits of alpha. Some programs count none and write some, so alpha is left
    out only where it says nothing, as it does in 16 bits that are all clear.
    """
    alpha = picture.alpha
    if alpha is None or (alpha != alpha.flat[0]).any():
        return picture
    counted, depth = content[17] & 0b1111, content[16]
    unused = not counted or (depth == 16 and not alpha.flat[0])
    return replace(picture, alpha=None) if unused else picture


def read_direct_draw(
    content: bytes, name: str, check_size: Callable[[tuple[int, int]], None]
) -> Picture:
    """Decode a DDS file: its first picture, which is told if there are others.

    Args:
        content: The whole file.
        name: Of the file, for messages.
        check_size: Given width and height before anything is decoded.

    Raises:
        ImageError: Its pixels are of a kind that isn't read.
    """
    surface = _surface(content)
    check_size((surface.width, surface.height))
    if surface.pictures > 1:
        _log.warning("%s: holds %d pictures; only the first is taken", name, surface.pictures)
    if surface.channels:
        return _of_samples(_plain(content, surface))
    if surface.kind in _BC6H:
        raise ImageError(f"{name}: of floating-point light; tone-map it to 16-bit PNG or TIFF")
    if surface.kind in _SAME_BYTES:
        code = struct.pack("<I", _SAME_BYTES[surface.kind])
        content = content[: _HEADER.size] + code + content[_HEADER.size + len(code) :]
    try:
        with Image.open(io.BytesIO(content), formats=[DIRECT_DRAW]) as image:
            image.load()
            picture = from_pillow(image, Metadata(), name)
    except NotImplementedError:
        kind = f"DXGI_FORMAT {surface.kind}" if isinstance(surface.kind, int) else surface.kind
        raise ImageError(
            f"{name}: a texture of a kind that is not read, {kind!r}; texconv -ft png in.dds"
        ) from None
    opaque = picture.alpha is not None and picture.alpha.all()
    return replace(picture, alpha=None) if surface.kind in _BC1 and opaque else picture


def _surface(content: bytes) -> _Surface:
    (_, _, height, width, _, depth, flags, letters, bits, *masks, kinds) = _HEADER.unpack(
        content[: _HEADER.size]
    )
    kind: bytes | int = letters
    channels: tuple[int, ...] = ()
    start = _HEADER.size
    pictures = (6 if kinds & _CUBE else 1) * (depth if kinds & _VOLUME else 1)
    if flags & _HAS_LETTERS and letters == b"DX10":
        code, dimension, more, members, _ = _MORE.unpack_from(content, start)
        start += _MORE.size
        kind, (bits, channels) = code, _PLAIN.get(code, (0, ()))
        pictures = members * (6 if more & _CUBE_DX10 else 1)
        pictures *= depth if dimension == _VOLUME_DX10 else 1
    elif flags & _IS_RGB:
        channels = tuple(masks if flags & _HAS_ALPHA else masks[:3])
    elif flags & _IS_GREY and not flags & _HAS_ALPHA:
        channels = ((1 << min(bits, 32)) - 1,)  # some write a mask beside all bits
    return _Surface(height, width, kind, bits, channels, start, pictures)


def _plain(content: bytes, surface: _Surface) -> Pixels:
    """``(H, W, C)`` levels of the channels; a `ValueError` where there are too few bytes.

    Grey of 16 bits stays so; all else becomes 8.
    """
    height, width, size = surface.height, surface.width, surface.bits // 8
    if not 0 < size <= 4 or not height * width:
        raise ValueError(f"{width}x{height} pixels of {surface.bits} bits")
    stored = np.frombuffer(content, np.uint8, height * width * size, surface.start)
    rows = stored.reshape(height, width, size)
    deep = surface.bits == 16 and len(surface.channels) == 1
    result = np.empty((height, width, len(surface.channels)), np.uint16 if deep else np.uint8)
    for top in range(0, height, _ROWS):
        part = rows[top : top + _ROWS]
        pixels = np.zeros(part.shape[:2], np.uint64)
        for place in range(size):
            pixels |= part[..., place].astype(np.uint64) << np.uint64(8 * place)
        for channel, mask in enumerate(surface.channels):
            result[top : top + _ROWS, :, channel] = _levels(pixels, mask, 65535 if deep else 255)
    return result


def _levels(pixels: NDArray[np.uint64], mask: int, white: int) -> NDArray[np.uint64]:
    """The bits below a mask, as levels up to ``white``."""
    lowest = max(mask & -mask, 1)
    most = max(mask // lowest, 1)
    found = (pixels & np.uint64(mask)) // np.uint64(lowest)
    return np.asarray((found * np.uint64(white) + np.uint64(most // 2)) // np.uint64(most))


def _of_samples(samples: Pixels) -> Picture:
    """Grey, or colours; the fourth channel is alpha."""
    if samples.shape[2] == 1:
        return Picture(samples[..., 0])
    colour: Any = np.ascontiguousarray(samples[..., :3])
    alpha: Any = np.ascontiguousarray(samples[..., 3]) if samples.shape[2] == 4 else None
    return Picture(colour, alpha)
