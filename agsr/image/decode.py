"""Decode the bytes of an image file to a `Picture`: true bit depth, grey as grey, upright.

Pillow decodes files of up to 8 bits per channel. Because it reduces deeper ones to 8 bits, OpenCV
decodes 16-bit PNG and AVIF, and `agsr.image.formats.tiff_reader` reads TIFF. The header determines
the depth; it is never guessed. Metadata comes from `agsr.image.metadata.collect`,
`agsr.image.formats.png_chunks` and `agsr.image.formats.tiff_pages`.
"""

from __future__ import annotations

import io
import logging
import struct
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from agsr.errors import AgsrError, ImageError, ImageTooLargeError
from agsr.image.formats.png_chunks import SIGNATURE, split_png
from agsr.image.formats.signatures import (
    DDS,
    HEIF_ENDINGS,
    TGA,
    TGA_ENDING,
    is_dds,
    is_heif,
    is_tga,
    is_tiff,
)
from agsr.image.high_bit_depth import decode_by_opencv, scale_to_16_bits, warn_of_unused_range
from agsr.image.metadata import Metadata, resolve_metadata, usable_profile, warn_of_pages
from agsr.image.metadata.collect import stored_metadata
from agsr.image.metadata.stored import StoredMetadata
from agsr.image.picture import Picture
from agsr.image.pillow_io import from_pillow
from agsr.image.unsupported import describe_unsupported, is_raw
from agsr.system.quiet_stderr import decoding
from agsr.system.text import counted

_BY_CONTENT: Final = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", DDS)
FORMATS: Final = (*_BY_CONTENT, TGA)
"""Readable formats by Pillow's names; JPEG includes MPO, the multi-picture JPEG of phones."""

READABLE: Final = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".tif", ".tiff", ".bmp", ".gif"}
    | {".avif", ".dds", TGA_ENDING}
    | HEIF_ENDINGS
)
"""File name endings that are read from folders. HEIC requires an extra; the error names it."""

MAX_PIXELS: Final = 1 << 27
"""Default limit for inputs, 134 megapixels: upscaled four times, they exceed 6 GB."""

_UPRIGHT: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}
"""By EXIF orientation: the turn from stored to shown rows and columns."""

_log = logging.getLogger(__name__)


def formats_of(name: str, content: bytes = b"") -> tuple[str, ...]:
    """Return the formats to try: TGA has no signature, so only if name or content suggests it."""
    return FORMATS if is_tga(name, content) else _BY_CONTENT


def decode(
    content: bytes, name: str, max_pixels: int = MAX_PIXELS, *, unknown_as_alpha: bool = False
) -> Picture:
    """Decode the bytes of an image file; only its first frame or page is used.

    Args:
        content: The whole file.
        name: File name for messages.
        max_pixels: Larger files are rejected before they are decoded.
        unknown_as_alpha: Treat a TIFF channel of unspecified meaning as alpha, which it is in files
            where painting programs save masks. Otherwise it is dropped with a warning.

    Raises:
        ImageError: Not an image, damaged, truncated, too large, or of an unsupported pixel type.
        MissingDependencyError: HEIC, and its reader is not installed.

    >>> from agsr.image.encode import encode
    >>> content = encode(Picture(np.zeros((2, 3), np.uint8)), ".png", "a.png")
    >>> decode(content, "a.png").pixels.shape
    (2, 3)
    """
    size = counted(len(content), "byte")
    try:
        with decoding():
            return _decode(content, name, max_pixels, unknown_as_alpha)
    except (AgsrError, MemoryError):
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit; programs can raise it
        raise ImageError(f"{name}: {error}") from None
    except UnidentifiedImageError:
        if known := describe_unsupported(content, name):
            raise ImageError(f"{name}: {known}") from None
        if is_tiff(content):
            raise ImageError(
                f"{name}: a TIFF file that is damaged or truncated ({size}), or not supported; "
                "expected 8, 16 or 32 bits per channel, grey, RGB or CMYK, with or without alpha"
            ) from None
        raise ImageError(
            f"{name}: not an image, or truncated ({size}); expected 8 or 16 bits per channel in "
            f"one of {' '.join(_BY_CONTENT)}, or {TGA} named {TGA_ENDING}"
        ) from None
    except Exception as error:  # damaged files make decoders raise nearly anything
        raise ImageError(f"{name}: damaged or truncated ({size})") from error


def _decode(content: bytes, name: str, max_pixels: int, unknown_as_alpha: bool) -> Picture:
    if is_raw(name):  # otherwise its preview would be decoded
        raise UnidentifiedImageError
    check = partial(_check_size, name=name, max_pixels=max_pixels)
    if is_dds(content):
        from agsr.image.formats.dds import read_dds

        return read_dds(content, name, check)
    if is_heif(content):
        from agsr.image.formats.heif import read_heif

        return _upright(read_heif(content, name, check), 1, name)
    if is_tiff(content):
        from agsr.image.formats.tiff_pages import open_tiff
        from agsr.image.formats.tiff_reader import read_tiff

        if (tiff := open_tiff(content)) is not None:
            warn_of_pages(tiff.pages, name)
            return _upright(*read_tiff(tiff, name, check, unknown_as_alpha), name)
    stored: StoredMetadata | None = None
    if content.startswith(SIGNATURE):
        content, stored = split_png(content, name)
    with Image.open(io.BytesIO(content), formats=formats_of(name, content)) as image:
        check(image.size)
        warn_of_pages(1 if image.format == "MPO" else getattr(image, "n_frames", 1), name)
        metadata, orientation = resolve_metadata(
            stored or stored_metadata(image, content), image.size, name
        )
        return _upright(_pixels(image, content, metadata, name), orientation, name)


def _pixels(image: Image.Image, content: bytes, metadata: Metadata, name: str) -> Picture:
    """Decode an opened file of any format but TIFF."""
    if image.format == "PNG" and content[24] == 16:  # IHDR begins at byte 16: width, height, depth
        picture = Picture(*decode_by_opencv(image, content), metadata)
        warn_of_unused_range(picture.pixels, 16, name)
        return picture
    if image.format == "AVIF" and (depth := _depth_of_avif(content)) > 8:
        return _deep_avif(image, content, metadata, depth)
    if image.format == TGA:
        from agsr.image.formats.tga import read_tga

        return read_tga(image, content, metadata, name)
    try:
        image.load()
    except OSError:
        if image.format not in ("JPEG", "MPO"):
            raise
        from agsr.image.formats.jpeg_end import completed

        image = completed(content)
        _log.warning("%s: the end marker is missing; all pixels are present", name)
    return from_pillow(image, metadata, name)


def _depth_of_avif(content: bytes) -> int:
    from agsr.image.metadata.boxes import read_boxes

    try:
        return read_boxes(content).depth
    except (ValueError, IndexError, struct.error):
        return 8


def _deep_avif(image: Image.Image, content: bytes, metadata: Metadata, depth: int) -> Picture:
    """Decode AVIF of 10 or 12 bits, scaled to 16."""
    pixels, alpha = decode_by_opencv(image, content)
    white = (1 << depth) - 1
    if pixels.max() > white:
        raise ValueError("samples of another depth")
    return Picture(
        scale_to_16_bits(pixels, depth),
        None if alpha is None else scale_to_16_bits(alpha, depth),
        metadata,
    )


def _check_size(size: tuple[int, int], name: str, max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageTooLargeError(
            f"{name}: {width}x{height} is {width * height} pixels, more than {max_pixels}; "
            f"if you trust the file: --max-pixels {width * height}",
            path=name,
            limit=max_pixels,
            found=width * height,
        )


def _upright(picture: Picture, orientation: int, name: str) -> Picture:
    turn = _UPRIGHT[orientation]
    pixels = np.ascontiguousarray(turn(picture.pixels))
    alpha = None if picture.alpha is None else np.ascontiguousarray(turn(picture.alpha))
    icc = usable_profile(picture.metadata.icc, 1 if pixels.ndim == 2 else 3, name)
    return Picture(pixels, alpha, replace(picture.metadata, icc=icc))
