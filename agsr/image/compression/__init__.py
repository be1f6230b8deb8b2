"""Estimate lossy compression from the headers of JPEG, WebP and AVIF files.

The command line calls `detect_compression` before the network runs and notes strong compression:
weights for clean inputs amplify its artifacts.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final

from PIL import Image

from agsr.image.compression.jpeg import BLOCKY, first_table, table_quality
from agsr.image.formats.signatures import is_tiff

_WEBP_STRONG: Final = 19
"""Quantizer index from which WebP is strongly compressed: libwebp quality 80."""

_AVIF_STRONG: Final = 100
"""The same for AVIF: about libaom quality 65."""

_JPEG_TABLES, _STRIP_OFFSETS, _STRIP_SIZES, _TILE_OFFSETS, _TILE_SIZES = 347, 273, 279, 324, 325
_COMPRESSION, _JPEG_IN_TIFF = 259, 7
_VP8_HEADER = 256
"""Leading bytes of a VP8 frame that contain its quantizers."""
_AVIF_LARGEST = 1 << 26


@dataclass(frozen=True)
class Compression:
    """Lossy compression of an image file."""

    format: str
    """``JPEG``, ``WebP``, ``AVIF`` or ``JPEG in TIFF``."""
    degree: str
    """Strength in the encoder's terms: ``quality 40``, ``quantizer 130 of 255``."""
    strong: bool
    """Whether artifacts are visible after upscaling."""

    def __str__(self) -> str:
        return f"{self.format}, {self.degree}"


def detect_compression(stream: BinaryIO) -> Compression | None:
    """Return the lossy compression of an image file; None if lossless or unreadable.

    Args:
        stream: Seekable file. Only headers are read, except for AVIF, which is read completely.

    >>> import io
    >>> file = io.BytesIO()
    >>> Image.new("L", (8, 8)).save(file, "JPEG", quality=40)
    >>> _ = file.seek(0)
    >>> print(detect_compression(file))
    JPEG, quality 40
    """
    try:
        return _compression(stream)
    except Exception:  # damaged files make Pillow raise nearly anything
        return None


def _compression(stream: BinaryIO) -> Compression | None:
    start = stream.read(16)
    stream.seek(0)
    if start.startswith(b"\xff\xd8"):
        with Image.open(stream, formats=["JPEG"]) as image:
            return jpeg_compression("JPEG", getattr(image, "quantization", {}).get(0, ()))
    if is_tiff(start):
        return _tiff(stream)
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return _webp(stream)
    if start[4:8] == b"ftyp" and start[8:12] in (b"avif", b"avis", b"mif1", b"miaf"):
        from agsr.image.compression import av1

        step = av1.quantizer(stream.read(_AVIF_LARGEST))
        degree = f"quantizer {step} of {av1.COARSEST_STEP}"
        return Compression("AVIF", degree, step >= _AVIF_STRONG) if step else None
    return None


def jpeg_compression(name: str, table: Sequence[int]) -> Compression | None:
    """Return the compression that a JPEG luminance table stands for; None for an empty table.

    >>> print(jpeg_compression("JPEG", [16] * 64))
    JPEG, quality 41
    """
    if not table:
        return None
    quality = table_quality(table)
    return Compression(name, f"quality {quality}", quality <= BLOCKY)


def _tiff(stream: BinaryIO) -> Compression | None:
    with Image.open(stream, formats=["TIFF"]) as image:
        tags = image.tag_v2
        if tags.get(_COMPRESSION) != _JPEG_IN_TIFF:
            return None
        table = first_table(tags.get(_JPEG_TABLES, b""))
        offsets = tags.get(_STRIP_OFFSETS) or tags.get(_TILE_OFFSETS)
        sizes = tags.get(_STRIP_SIZES) or tags.get(_TILE_SIZES)
        if not table:
            stream.seek(offsets[0])
            table = first_table(stream.read(sizes[0]))
    return jpeg_compression("JPEG in TIFF", table)


def _webp(stream: BinaryIO) -> Compression | None:
    from agsr.image.compression import vp8

    stream.seek(12)
    while len(header := stream.read(8)) == 8:
        size = int.from_bytes(header[4:], "little")
        if header[:4] == b"VP8 ":
            step = vp8.quantizer(stream.read(min(size, _VP8_HEADER)))
            degree = f"quantizer {step} of {vp8.COARSEST_STEP}"
            return Compression("WebP", degree, step >= _WEBP_STRONG)
        if header[:4] == b"VP8L":
            return None
        if header[:4] == b"ANMF":  # animation: skip to the chunks of its first frame
            size = 16
        stream.seek(size + size % 2, io.SEEK_CUR)
    return None
