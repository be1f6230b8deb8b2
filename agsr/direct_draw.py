"""DirectDraw files, the textures of games.

Pillow decodes blocks; plain pixels are decoded here, since it takes a second per megapixel for them
and knows only some of their names.

Source: Microsoft, *DDS file layout* and *DXGI_FORMAT*.
"""

from __future__ import annotations

import io
import logging
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agsr.errors import ImageError
from agsr.metadata import Metadata
from agsr.picture import Picture, Pixels
from agsr.pillow import from_pillow

FORMAT: Final = "DDS"
"""Pillow's name."""

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


def is_direct_draw(content: bytes) -> bool:
    """Whether a file is DirectDraw."""
    return content.startswith(_MAGIC)


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
        with Image.open(io.BytesIO(content), formats=[FORMAT]) as image:
            image.load()
            picture = from_pillow(image, Metadata(), name)
    except NotImplementedError:
        kind = _named(surface.kind)
        raise ImageError(
            f"{name}: a texture of a kind that is not read, {kind}; texconv -ft png in.dds"
        ) from None
    opaque = picture.alpha is not None and picture.alpha.all()
    return replace(picture, alpha=None) if surface.kind in _BC1 and opaque else picture


def _named(kind: bytes | int) -> str:
    """A kind of pixels as tools name it: by letters or by number."""
    if isinstance(kind, int):
        return f"DXGI_FORMAT {kind}"
    number = int.from_bytes(kind, "little")
    if number < 256:
        return f"D3DFORMAT {number}" if number else "told by masks"
    return repr(kind.decode("ascii", "backslashreplace"))


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
