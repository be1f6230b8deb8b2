"""Write PNG files of 8 and 16 bits per channel while their rows arrive.

Pillow can't write 16-bit colour, and needs the whole picture. This writer supports grey, grey with
alpha, RGB and RGBA, with chunks, two of the five filters, and zlib (PNG, third edition).

Upscaled photographs compress best as prediction residuals and hardly repeat, so searching for
matches takes most of the time and gains little. Drawings do repeat. Each share of rows is
compressed in the best of three ways, determined on a few of its rows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from zlib_ng import zlib_ng as zlib  # twice as fast

from agsr.image.formats.deflate import LEVEL, in_shares
from agsr.image.metadata import Metadata
from agsr.image.metadata.colour import Colour
from agsr.image.metadata.exif import HEADER
from agsr.image.metadata.iptc import resource, to_hexadecimal
from agsr.image.metadata.stored import Text, whole_density
from agsr.image.picture import RowBands, samples_of

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPE = {1: 0, 2: 4, 3: 2, 4: 6}
_UP, _PAETH = 2, 4
_METRES_PER_INCH = 0.0254

_SHARE_BYTES = 1 << 19
"""Bytes of pixels per ``IDAT`` chunk, which fit into the processor's cache."""
_TRIED_BYTES = 1 << 14
_LARGEST_CHUNK = 1 << 30
"""Bytes per chunk; the format allows less than 2 GiB, and a single row may exceed that."""

_LONG_TEXT = 1024
"""Texts with more characters are compressed."""

_ZLIB_HEADER = b"\x78\x5e"
_ZLIB_END = b"\x03\x00"  # an empty last block
_RAW = -15  # negative: no header, because all shares form one stream

Bytes2D = NDArray[np.uint8]


class _Packing(NamedTuple):
    filter_type: int
    level: int
    strategy: int
    price: float
    """Cost factor per byte: a faster packing may be slightly larger."""


_PACKINGS = (
    _Packing(_PAETH, 1, zlib.Z_HUFFMAN_ONLY, 0.96),
    _Packing(_PAETH, 1, zlib.Z_RLE, 1),
    _Packing(_UP, LEVEL, zlib.Z_DEFAULT_STRATEGY, 1),
)
"""For photographs, smooth drawings, and repetitive drawings."""


def write_png(row_bands: RowBands, stream: BinaryIO) -> None:
    """Write a PNG file.

    Args:
        row_bands: uint8 or uint16; all metadata is written.
        stream: Output; only appended to.
    """
    depth, colour = row_bands.dtype.itemsize * 8, _COLOUR_TYPE[row_bands.samples]
    header = struct.pack(">IIBBBBB", row_bands.width, row_bands.height, depth, colour, 0, 0, 0)
    stream.write(_SIGNATURE)
    for kind, data in ((b"IHDR", header), *_metadata_chunks(row_bands.metadata)):
        stream.write(_chunk(kind, data))
    for data in _zlib_stream(row_bands):
        for start in range(0, len(data), _LARGEST_CHUNK):
            stream.write(_chunk(b"IDAT", data[start : start + _LARGEST_CHUNK]))
    stream.write(_chunk(b"IEND", b""))


def _zlib_stream(row_bands: RowBands) -> Iterator[bytes]:
    """Yield one zlib stream of all rows, a share at a time."""
    pixel = row_bands.samples * row_bands.dtype.itemsize
    rows = max(1, _SHARE_BYTES // (row_bands.width * pixel))
    padded = np.zeros((rows + 1, (row_bands.width + 1) * pixel), np.uint8)
    checksum, begin = zlib.adler32(b""), _ZLIB_HEADER
    for share in in_shares(map(samples_of, row_bands.bands), rows):
        count = len(share)
        padded[1 : count + 1, pixel:] = _bytes_of(share)
        filtered, data = _packed(padded[: count + 1], pixel)
        checksum = zlib.adler32(filtered.data, checksum)
        yield begin + data
        padded[0], begin = padded[count], b""
    yield _ZLIB_END + struct.pack(">I", checksum)


def _bytes_of(samples: NDArray[Any]) -> Bytes2D:
    """``(H, W, C)`` → ``(H, bytes of a row)``, most significant byte first."""
    ordered = np.ascontiguousarray(samples, samples.dtype.newbyteorder(">"))
    return ordered.view(np.uint8).reshape(len(samples), -1)


def _packed(padded: Bytes2D, pixel: int) -> tuple[Bytes2D, bytes]:
    """Filter and deflate rows with the best packing.

    Args:
        padded: The previous row and the rows, each preceded by an empty pixel.
        pixel: Bytes per pixel.
    """
    few = padded[: 1 + max(1, _TRIED_BYTES // padded.shape[1])]
    best = min(_PACKINGS, key=lambda p: p.price * len(_deflated(_filtered(few, pixel, p), p)))
    filtered = _filtered(padded, pixel, best)
    return filtered, _deflated(filtered, best)


def _deflated(filtered: Bytes2D, packing: _Packing) -> bytes:
    """Return byte-aligned deflate blocks, independent of earlier ones."""
    packer = zlib.compressobj(packing.level, zlib.DEFLATED, _RAW, strategy=packing.strategy)
    return packer.compress(filtered.data) + packer.flush(zlib.Z_SYNC_FLUSH)


def _filtered(padded: Bytes2D, pixel: int, packing: _Packing) -> Bytes2D:
    """Return the residuals of the rows, each preceded by its filter type."""
    rows, above = padded[1:, pixel:], padded[:-1, pixel:]
    result = np.empty((rows.shape[0], rows.shape[1] + 1), np.uint8)
    result[:, 0] = packing.filter_type
    predicted = above if packing.filter_type == _UP else _paeth(padded, pixel)
    np.subtract(rows, predicted, out=result[:, 1:])
    return result


def _paeth(padded: Bytes2D, pixel: int) -> Bytes2D:
    """Paeth predictor: of left, above and corner, the nearest to left + above - corner.

    Computed in 8 bits without branches, several times as fast as by the definition. The distance to
    ``corner`` exceeds the other two unless ``corner`` is between ``left`` and ``above``.
    """
    left, above, corner = padded[1:, :-pixel], padded[:-1, pixel:], padded[:-1, :-pixel]
    to_left, to_above = _distance(above, corner), _distance(left, corner)
    low = np.minimum(to_left, to_above)
    nearest: Bytes2D = above ^ ((left ^ above) & _mask(to_left <= to_above))
    between = (above > corner) != (left > corner)
    between &= np.maximum(to_left, to_above) - low < low
    nearest ^= (nearest ^ corner) & _mask(between)
    return nearest


def _distance(a: Bytes2D, b: Bytes2D) -> Bytes2D:
    return np.maximum(a, b) - np.minimum(a, b)


def _mask(chosen: NDArray[np.bool_]) -> Bytes2D:
    """255 where true, 0 elsewhere."""
    return np.negative(chosen.view(np.uint8))


def _metadata_chunks(metadata: Metadata) -> list[tuple[bytes, bytes]]:
    chunks = []
    if metadata.colour:
        chunks += _colour_chunks(metadata.colour, profile=metadata.icc is not None)
    if metadata.icc:
        chunks.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.icc)))
    if metadata.dpi:
        per_metre = (round(dpi / _METRES_PER_INCH) for dpi in metadata.dpi)
        chunks.append((b"pHYs", struct.pack(">IIB", *per_metre, 1)))
    elif metadata.aspect:
        chunks.append((b"pHYs", struct.pack(">IIB", *whole_density(metadata.aspect), 0)))
    if metadata.exif:
        chunks.append((b"eXIf", metadata.exif.removeprefix(HEADER)))
    if metadata.xmp:  # keyword, not compressed, no language, no translation
        chunks.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp))
    if metadata.iptc:  # PNG has no field for it; ImageMagick, libvips and ExifTool do the same
        digits = to_hexadecimal("iptc", resource(metadata.iptc))
        chunks.append((b"zTXt", b"Raw profile type iptc\0\0" + zlib.compress(digits.encode())))
    return chunks + [_text_chunk(text) for text in metadata.text]


def _colour_chunks(colour: Colour, profile: bool) -> list[tuple[bytes, bytes]]:
    """Return colour chunks; with a profile, only those that take precedence over it."""
    chunks = [(name.encode(), data) for name, data in colour.levels]
    if colour.codes:
        codes = (code & 255 for code in colour.codes)
        chunks.append((b"cICP", bytes([*codes, 0, not colour.narrow])))
    if profile:
        return chunks
    if colour.intent is not None:
        chunks.append((b"sRGB", bytes([colour.intent])))
    if colour.gamma is not None:
        chunks.append((b"gAMA", struct.pack(">I", round(colour.gamma * 100_000))))
    if colour.chromaticities is not None:
        values = (round(value * 100_000) for value in colour.chromaticities)
        chunks.append((b"cHRM", struct.pack(">8I", *values)))
    return chunks


def _text_chunk(text: Text) -> tuple[bytes, bytes]:
    """Encode a text: Latin-1 if possible, compressed if long."""
    keyword, long = text.keyword.encode("latin-1", "replace")[:79], len(text.text) > _LONG_TEXT
    keyword = keyword.replace(b"\0", b" ") or b"Comment"
    try:
        content = text.text.replace("\0", " ").encode("latin-1")
    except UnicodeEncodeError:
        content = b""
    if not text.language and not text.translated and (content or not text.text):
        if long:
            return b"zTXt", keyword + b"\0\0" + zlib.compress(content)
        return b"tEXt", keyword + b"\0" + content
    content = text.text.encode("utf-8", "replace")
    content = zlib.compress(content) if long else content
    language, translated = text.language.encode("ascii", "replace"), text.translated.encode()
    head = keyword + bytes([0, long, 0]) + language + b"\0" + translated + b"\0"
    return b"iTXt", head + content


def _chunk(kind: bytes, data: bytes) -> bytes:
    checked = kind + data
    return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))
