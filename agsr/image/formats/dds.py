"""Read DDS textures.

Pillow decodes block-compressed pixels. Uncompressed pixels are decoded here, because Pillow takes a
second per megapixel for them and supports only some layouts.

Source: Microsoft, *DDS file layout* and *DXGI_FORMAT*.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agsr.errors import ImageError
from agsr.image.formats.signatures import DDS
from agsr.image.metadata import Metadata, warn_of_pages
from agsr.image.picture import Picture, Pixels
from agsr.image.pillow_io import from_pillow

_HEADER: Final = struct.Struct("<4x 6I 52x I 4s I 4I 4x I 12x")
_MORE: Final = struct.Struct("<5I")
"""DX10 extension header."""

_HAS_ALPHA, _IS_ALPHA, _HAS_LETTERS = 0x1, 0x2, 0x4  # flags of a pixel format
_IS_RGB, _IS_GREY, _IS_SIGNED = 0x40, 0x2_0000, 0x8_0000
_CUBE, _VOLUME, _CUBE_DX10, _VOLUME_DX10 = 0x200, 0x20_0000, 4, 4


@dataclass(frozen=True)
class _Plain:
    """Layout of an uncompressed pixel."""

    bits: int
    """Bits per pixel."""
    masks: tuple[int, ...]
    """Bit masks of grey or RGB, and optionally alpha; 0 for a missing channel."""
    signed: bool = False
    """Channels are in [-1, 1], as of vectors; they are mapped to levels like normal maps."""

    @property
    def deep(self) -> bool:
        """Whether any channel has more than 8 bits."""
        return any(mask // max(mask & -mask, 1) > 0xFF for mask in self.masks)


def _layout(*bits: int, order: str = "rgba", signed: bool = False) -> _Plain:
    """Return the layout of channels with the given bits, lowest first."""
    masks, lowest = dict.fromkeys("rgb", 0), 0
    for name, count in zip(order, bits, strict=False):
        if name != "x":  # unused bits
            masks[name] = (1 << count) - 1 << lowest
        lowest += count
    return _Plain(sum(bits), tuple(masks.values()), signed)


_PLAIN: Final = {
    11: _layout(16, 16, 16, 16),
    13: _layout(16, 16, 16, 16, signed=True),
    24: _layout(10, 10, 10, 2),
    **dict.fromkeys((27, 28, 29), _layout(8, 8, 8, 8)),
    31: _layout(8, 8, 8, 8, signed=True),
    35: _layout(16, 16),
    37: _layout(16, 16, signed=True),
    49: _layout(8, 8),
    51: _layout(8, 8, signed=True),
    **dict.fromkeys((60, 61, 65), _Plain(8, (0xFF,))),
    56: _Plain(16, (0xFFFF,)),
    85: _layout(5, 6, 5, order="bgr"),
    86: _layout(5, 5, 5, 1, order="bgra"),
    **dict.fromkeys((87, 90, 91), _layout(8, 8, 8, 8, order="bgra")),
    **dict.fromkeys((88, 92, 93), _layout(8, 8, 8, 8, order="bgrx")),
    115: _layout(4, 4, 4, 4, order="bgra"),
}
"""Layouts by DXGI_FORMAT."""

_BY_NUMBER: Final = {36: _PLAIN[11], 110: _PLAIN[13]}
"""Layouts by D3DFORMAT, which may be stored in place of the FourCC."""

_SAME_BYTES: Final = {72: 71, 75: 74, 78: 77}
"""sRGB variants of BC1 to BC3, and the equivalents that Pillow supports."""

_BC1: Final = (b"DXT1", 70, 71, 72)
_BC6H: Final = (94, 95, 96)

_ROWS = 256
"""Rows decoded at a time, to limit memory."""


@dataclass(frozen=True)
class _Surface:
    """Contents of a DDS header."""

    height: int
    width: int
    kind: bytes | int
    """FourCC or DXGI_FORMAT; unused for uncompressed pixels."""
    plain: _Plain | None
    """None for block-compressed and unsupported pixels."""
    start: int
    """Offset of the pixels, bytes."""
    pictures: int
    """Faces of a cube, slices of a volume, members of an array."""


def read_dds(content: bytes, name: str, check_size: Callable[[tuple[int, int]], None]) -> Picture:
    """Decode the first picture of a DDS file; a warning reports others.

    Args:
        content: The whole file.
        name: File name for messages.
        check_size: Called with width and height before anything is decoded.

    Raises:
        ImageError: The pixel format is not supported.
    """
    surface = _surface(content)
    check_size((surface.width, surface.height))
    warn_of_pages(surface.pictures, name)
    if surface.plain is not None:
        return _of_samples(_samples(content, surface, surface.plain))
    if surface.kind in _BC6H:
        raise ImageError(f"{name}: floating-point HDR (BC6H); tone-map it to 16-bit PNG or TIFF")
    if surface.kind in _SAME_BYTES:
        code = struct.pack("<I", _SAME_BYTES[surface.kind])
        content = content[: _HEADER.size] + code + content[_HEADER.size + len(code) :]
    try:
        with Image.open(io.BytesIO(content), formats=[DDS]) as image:
            image.load()
            picture = from_pillow(image, Metadata(), name)
    except NotImplementedError:
        kind = _named(surface.kind)
        raise ImageError(
            f"{name}: unsupported texture format {kind}; convert it: texconv -ft png in.dds"
        ) from None
    opaque = picture.alpha is not None and picture.alpha.all()
    return replace(picture, alpha=None) if surface.kind in _BC1 and opaque else picture


def _named(kind: bytes | int) -> str:
    """Name a pixel format as tools do: by FourCC or number."""
    if isinstance(kind, int):
        return f"DXGI_FORMAT {kind}"
    number = int.from_bytes(kind, "little")
    if number < 256:
        return f"D3DFORMAT {number}" if number else "by masks"
    return repr(kind.decode("ascii", "backslashreplace"))


def _surface(content: bytes) -> _Surface:
    (_, _, height, width, _, depth, flags, letters, bits, *masks, kinds) = _HEADER.unpack(
        content[: _HEADER.size]
    )
    kind: bytes | int = letters
    plain: _Plain | None = None
    start = _HEADER.size
    pictures = (6 if kinds & _CUBE else 1) * (depth if kinds & _VOLUME else 1)
    if flags & _HAS_LETTERS and letters == b"DX10":
        code, dimension, more, members, _ = _MORE.unpack_from(content, start)
        start += _MORE.size
        kind, plain = code, _PLAIN.get(code)
        pictures = members * (6 if more & _CUBE_DX10 else 1)
        pictures *= depth if dimension == _VOLUME_DX10 else 1
    elif flags & _HAS_LETTERS:
        plain = _BY_NUMBER.get(int.from_bytes(letters, "little"))
    elif flags & (_IS_RGB | _IS_SIGNED):
        channels = masks if flags & _HAS_ALPHA or (masks[3] and flags & _IS_SIGNED) else masks[:3]
        plain = _Plain(bits, tuple(channels), signed=bool(flags & _IS_SIGNED))
    elif flags & _IS_GREY and flags & _HAS_ALPHA:
        half = (1 << bits // 2) - 1  # masks are unreliable: some programs write those of colours
        plain = _Plain(bits, (half, half << bits // 2))
    elif flags & (_IS_GREY | _IS_ALPHA):
        # All bits: some programs write masks outside the pixel.
        plain = _Plain(bits, ((1 << min(bits, 32)) - 1,))
    return _Surface(height, width, kind, plain, start, pictures)


def _samples(content: bytes, surface: _Surface, plain: _Plain) -> Pixels:
    """Return channel levels ``(H, W, C)``: uint16 if any channel has more than 8 bits, else uint8.

    Raises:
        ValueError: Too few bytes.
    """
    height, width, size = surface.height, surface.width, plain.bits // 8
    if not 0 < size <= 8 or not height * width:
        raise ValueError(f"{width}x{height} pixels of {plain.bits} bits")
    stored = np.frombuffer(content, np.uint8, height * width * size, surface.start)
    rows = stored.reshape(height, width, size)
    kind, levels = (np.uint16 if plain.deep else np.uint8), _signed if plain.signed else _levels
    result = np.empty((height, width, len(plain.masks)), kind)
    for top in range(0, height, _ROWS):
        part = rows[top : top + _ROWS]
        pixels = np.zeros(part.shape[:2], np.uint64)
        for place in range(size):
            pixels |= part[..., place].astype(np.uint64) << np.uint64(8 * place)
        for channel, mask in enumerate(plain.masks):
            result[top : top + _ROWS, :, channel] = levels(pixels, mask, np.iinfo(kind).max)
    return result


def _levels(pixels: NDArray[np.uint64], mask: int, white: int) -> NDArray[np.uint64]:
    """Extract a channel as levels from 0 to ``white``."""
    lowest = max(mask & -mask, 1)
    most = max(mask // lowest, 1)
    found = (pixels & np.uint64(mask)) // np.uint64(lowest)
    return np.asarray((found * np.uint64(white) + np.uint64(most // 2)) // np.uint64(most))


def _signed(pixels: NDArray[np.uint64], mask: int, white: int) -> NDArray[np.uint64]:
    """Extract a signed channel in [-1, 1], as levels from 0 to ``white``."""
    lowest = max(mask & -mask, 1)
    half = mask // lowest // 2 + 1
    found = ((pixels & np.uint64(mask)) // np.uint64(lowest)).astype(np.int64)
    number = np.where(found < half, found, found - 2 * half) / max(half - 1, 1)
    return np.asarray(np.floor((number.clip(-1) + 1) * white / 2 + 0.5).astype(np.uint64))


def _of_samples(samples: Pixels) -> Picture:
    """Split channels into grey or RGB, and alpha."""
    count = samples.shape[2]
    colour: Any = np.ascontiguousarray(samples[..., :3] if count > 2 else samples[..., 0])
    alpha: Any = np.ascontiguousarray(samples[..., -1]) if count in (2, 4) else None
    return Picture(colour, alpha)
