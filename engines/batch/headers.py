"""Inspect file headers of a batch before anything is decoded; `peek` reads each of them once.

Sizes show which files may be earlier results, and give the amount of work, by which ``auto``
selects a backend and progress estimates the time left; `file_compression` detects strong
compression.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image

from agsr.image.compression import Compression, detect_compression, jpeg_compression
from agsr.image.decode import formats_of
from agsr.store.address import Location

_LOSSLESS = {"BMP", "GIF", "PNG", "PPM", "TGA"}
"""Pillow's names of formats without lossy compression."""


@dataclass(frozen=True)
class Header:
    """Header of an image file."""

    width: int
    """Stored columns, before any rotation."""
    height: int
    """Stored rows."""
    format: str
    """Pillow's name of the format."""
    jpeg_table: tuple[int, ...] = ()
    """Luminance quantization table of a JPEG file, row by row."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.width, self.height


def peek(path: Path) -> Header:
    """Read an image file's header; it is read again only if the file was changed.

    Raises:
        Exception: The file is missing, or damaged, which makes Pillow raise nearly anything.
    """
    found = path.stat()
    return _read(path, found.st_mtime_ns, found.st_size)


@lru_cache(1 << 13)
def _read(path: Path, *_: int) -> Header:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path, formats=formats_of(path.name)) as image:
            table = getattr(image, "quantization", {}).get(0, ())
            return Header(int(image.width), int(image.height), str(image.format), tuple(table))


def count_pixels(files: Sequence[Location], enough: int = 1 << 20) -> int | None:
    """Count pixels of image files by their headers, up to ``enough``.

    Returns None if a header can't be read or comes from a pipe or a server; missing files
    count 0.
    """
    total = 0
    for file in files:
        size = stored_size(file)
        if size is None:
            return None
        total += math.prod(size)
        if total >= enough:
            break
    return total


def estimate_work(files: Sequence[Location], most: int = 5000) -> list[float]:
    """Return the pixels of each file by its header; unknown ones get the mean of the others.

    Args:
        files: Image files.
        most: Maximum number of headers to read; further files get the mean.
    """
    sizes = [stored_size(file) for file in files[:most]]
    known = [math.prod(size) for size in sizes if size]
    mean = max(sum(known) / len(known) if known else 1.0, 1.0)
    counts = [float(math.prod(size)) if size else mean for size in sizes]
    return [max(count, 1.0) for count in counts] + [mean] * (len(files) - len(counts))


def file_compression(path: Location) -> Compression | None:
    """Return the lossy compression of an image file; None if lossless, unreadable or remote."""
    if not isinstance(path, Path) or not path.is_file():  # reading would consume a pipe
        return None
    header = _known(path)
    if header is not None and header.jpeg_table:
        return jpeg_compression("JPEG", header.jpeg_table)
    if header is not None and header.format in _LOSSLESS:
        return None
    try:
        with path.open("rb") as stream:
            return detect_compression(stream)
    except OSError:
        return None


def stored_size(path: Location) -> tuple[int, int] | None:
    """Return the width and height that `peek` reads.

    None if the header can't be read or comes from a pipe or a server; (0, 0) for a missing file.
    """
    if not isinstance(path, Path):
        return None
    if not path.is_file():
        return None if str(path) == "-" or path.exists() else (0, 0)
    header = _known(path)
    return None if header is None else header.size


def _known(path: Path) -> Header | None:
    try:
        return peek(path)
    except Exception:
        return None
