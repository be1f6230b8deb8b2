"""Bytes of an image file → `Picture`: real bit depth, grey as grey, alpha apart, upright.

Pillow opens most files and decodes up to 8 bits per channel. It would reduce more bits to 8, so PNG
and AVIF files that have them are decoded by OpenCV; TIFF files are read by
`agsr.image.formats.tiff_reader`. The depth is what the file's header says, never guessed. What a
file says about its picture comes from `agsr.image.metadata.collect`,
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
from agsr.image.formats.dds import FORMAT as DIRECT_DRAW
from agsr.image.formats.dds import is_direct_draw, read_direct_draw
from agsr.image.formats.heif import ENDINGS as HEIF_ENDINGS
from agsr.image.formats.heif import is_heif, read_heif
from agsr.image.formats.jpeg_end import completed
from agsr.image.formats.png_chunks import SIGNATURE, split_png
from agsr.image.formats.tga import ENDING as TARGA_ENDING
from agsr.image.formats.tga import FORMAT as TARGA
from agsr.image.formats.tga import is_targa, read_targa
from agsr.image.formats.tiff_pages import open_tiff
from agsr.image.formats.tiff_reader import read_tiff
from agsr.image.high_bit_depth import by_opencv, stretched, warn_of_unused_range
from agsr.image.metadata import Metadata, described, usable_profile, warn_of_pages
from agsr.image.metadata.boxes import read_boxes
from agsr.image.metadata.collect import facts_of
from agsr.image.metadata.found import Found
from agsr.image.picture import Picture
from agsr.image.pillow_io import from_pillow
from agsr.image.unsupported import is_raw, what_it_is
from agsr.system.quiet_stderr import decoding
from agsr.system.text import counted

_TOLD_BY_CONTENT: Final = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", DIRECT_DRAW)
FORMATS: Final = (*_TOLD_BY_CONTENT, TARGA)
"""What is read, by Pillow's names; JPEG includes MPO, the JPEG with extras of phones."""

READABLE: Final = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".tif", ".tiff", ".bmp", ".gif"}
    | {".avif", ".dds", TARGA_ENDING}
    | HEIF_ENDINGS
)
"""File name endings that are picked from folders. Those of HEIC need an extra, which is told."""

MAX_PIXELS: Final = 1 << 27
"""Larger inputs (134 megapixels) are refused where nothing else is asked for: four times as high
and as wide, they are more than 6 GB."""

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

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
"""By EXIF orientation: how stored rows and columns become those that are shown."""

_log = logging.getLogger(__name__)


def formats_of(name: str, content: bytes = b"") -> tuple[str, ...]:
    """Those of `FORMATS` that a file may have: nearly any bytes could be Targa."""
    return FORMATS if is_targa(name, content) else _TOLD_BY_CONTENT


def decode(
    content: bytes, name: str, max_pixels: int = MAX_PIXELS, *, unknown_as_alpha: bool = False
) -> Picture:
    """Decode the bytes of an image file; of several pictures, the first.

    Args:
        content: The whole file.
        name: Of the file, for messages.
        max_pixels: Files with more are refused before they are decoded.
        unknown_as_alpha: Take the channel of a TIFF file whose meaning it doesn't tell for alpha,
            as it is where painting programs save masks. Otherwise it is left out, which is told.

    Raises:
        ImageError: Not an image, damaged, truncated, too large, or of an unsupported pixel type.
        MissingDependencyError: It is HEIC, whose reader is not installed.
    """
    size = counted(len(content), "byte")
    try:
        with decoding():
            return _decode(content, name, max_pixels, unknown_as_alpha)
    except (AgsrError, MemoryError):
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit, which programs can lift
        raise ImageError(f"{name}: {error}") from None
    except UnidentifiedImageError:
        if known := what_it_is(content, name):
            raise ImageError(f"{name}: {known}") from None
        if content.startswith(_TIFF):
            raise ImageError(
                f"{name}: a TIFF file that is damaged or truncated ({size}), or not read; "
                "expected 8, 16 or 32 bits per channel, grey, RGB or CMYK, with or without alpha"
            ) from None
        raise ImageError(
            f"{name}: not an image, or truncated ({size}); expected 8 or 16 bits per channel in "
            f"one of {' '.join(_TOLD_BY_CONTENT)}, or {TARGA} named {TARGA_ENDING}"
        ) from None
    except Exception as error:  # damaged files make decoders raise nearly anything
        raise ImageError(f"{name}: damaged or truncated ({size})") from error


def _decode(content: bytes, name: str, max_pixels: int, unknown_as_alpha: bool) -> Picture:
    if is_raw(name):  # else its preview would be taken for it
        raise UnidentifiedImageError
    check = partial(_check_size, name=name, max_pixels=max_pixels)
    if is_direct_draw(content):
        return read_direct_draw(content, name, check)
    if is_heif(content):
        return _upright(read_heif(content, name, check), 1, name)
    if content.startswith(_TIFF) and (tiff := open_tiff(content)) is not None:
        warn_of_pages(tiff.pages, name)
        return _upright(*read_tiff(tiff, name, check, unknown_as_alpha), name)
    found: Found | None = None
    if content.startswith(SIGNATURE):
        content, found = split_png(content, name)
    with Image.open(io.BytesIO(content), formats=formats_of(name, content)) as image:
        check(image.size)
        warn_of_pages(1 if image.format == "MPO" else getattr(image, "n_frames", 1), name)
        metadata, orientation = described(found or facts_of(image, content), image.size, name)
        return _upright(_pixels(image, content, metadata, name), orientation, name)


def _pixels(image: Image.Image, content: bytes, metadata: Metadata, name: str) -> Picture:
    """Decode an opened file of any format but TIFF."""
    if image.format == "PNG" and content[24] == 16:  # IHDR begins at byte 16: width, height, depth
        picture = Picture(*by_opencv(image, content), metadata)
        warn_of_unused_range(picture.pixels, 16, name)
        return picture
    if image.format == "AVIF" and (depth := _depth_of_avif(content)) > 8:
        return _deep_avif(image, content, metadata, depth)
    if image.format == TARGA:
        return read_targa(image, content, metadata, name)
    try:
        image.load()
    except OSError:
        if image.format not in ("JPEG", "MPO"):
            raise
        image = completed(content)
        _log.warning("%s: has no end marker; all its pixels are there", name)
    return from_pillow(image, metadata, name)


def _depth_of_avif(content: bytes) -> int:
    try:
        return read_boxes(content).depth
    except (ValueError, IndexError, struct.error):
        return 8


def _deep_avif(image: Image.Image, content: bytes, metadata: Metadata, depth: int) -> Picture:
    """Decode AVIF of 10 or 12 bits; they become 16."""
    pixels, alpha = by_opencv(image, content)
    white = (1 << depth) - 1
    if pixels.max() > white:
        raise ValueError("samples of another depth")
    return Picture(
        stretched(pixels, depth), None if alpha is None else stretched(alpha, depth), metadata
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
