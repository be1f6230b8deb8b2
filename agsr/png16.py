"""PNG files of 16 bits per channel, which Pillow can't write.

Only what such a file needs: chunks (PNG, third edition, section 11), one filter, zlib. Grey, grey
with alpha, RGB and RGBA.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from agsr.deflate import LEVEL
from agsr.metadata import EXIF_HEADER, Metadata

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPE = {1: 0, 2: 4, 3: 2, 4: 6}
_FILTER_UP = 2
_METRES_PER_INCH = 0.0254


def encode_png16(samples: NDArray[np.uint16], metadata: Metadata) -> bytes:
    """A PNG file of 16 bits per channel.

    Args:
        samples: ``(H, W, C)`` uint16; C is 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA).
        metadata: All of it is written.
    """
    height, width, channels = samples.shape
    header = struct.pack(">IIBBBBB", width, height, 16, _COLOUR_TYPE[channels], 0, 0, 0)
    chunks = [
        (b"IHDR", header),
        *_metadata_chunks(metadata),
        (b"IDAT", zlib.compress(_filtered(samples), LEVEL)),
        (b"IEND", b""),
    ]
    return _SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)


def _filtered(samples: NDArray[np.uint16]) -> bytes:
    """The rows as differences from the row above, byte by byte, each after its filter's number."""
    height = samples.shape[0]
    rows = np.ascontiguousarray(samples.astype(">u2")).view(np.uint8).reshape(height, -1)
    filtered = np.full((height, rows.shape[1] + 1), _FILTER_UP, np.uint8)
    filtered[:, 1:] = rows
    filtered[1:, 1:] -= rows[:-1]
    return filtered.tobytes()


def _metadata_chunks(metadata: Metadata) -> list[tuple[bytes, bytes]]:
    chunks = []
    if metadata.icc:
        chunks.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.icc)))
    if metadata.dpi:
        per_metre = (round(dpi / _METRES_PER_INCH) for dpi in metadata.dpi)
        chunks.append((b"pHYs", struct.pack(">IIB", *per_metre, 1)))
    if metadata.exif:
        chunks.append((b"eXIf", metadata.exif.removeprefix(EXIF_HEADER)))
    if metadata.xmp:  # keyword, not compressed, no language, no translation
        chunks.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp))
    return chunks


def _chunk(kind: bytes, data: bytes) -> bytes:
    checked = kind + data
    return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))
