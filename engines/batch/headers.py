"""Inspect file headers of a batch before anything is decoded.

Sizes give the amount of work, by which ``auto`` selects a backend and progress estimates the time
left; `file_compression` detects strong compression.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from agsr.image.compression import Compression, detect_compression
from agsr.image.decode import formats_of


def count_pixels(files: Sequence[Path], enough: int = 1 << 20) -> int | None:
    """Count pixels of image files by their headers, up to ``enough``.

    Returns None if a header can't be read or comes from a pipe; missing files count 0.
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


def estimate_work(files: Sequence[Path], most: int = 5000) -> list[float]:
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


def file_compression(path: Path) -> Compression | None:
    """Return the lossy compression of an image file; None if lossless or unreadable."""
    if not path.is_file():  # reading would consume a pipe
        return None
    try:
        with path.open("rb") as stream:
            return detect_compression(stream)
    except OSError:
        return None


def read_size(path: Path) -> tuple[int, int]:
    """Read width and height from an image file's header, before any rotation.

    Raises:
        Exception: Damaged files make Pillow raise nearly anything.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path, formats=formats_of(path.name)) as image:
            return int(image.width), int(image.height)


def stored_size(
    path: Path, read: Callable[[Path], tuple[int, int]] = read_size
) -> tuple[int, int] | None:
    """Return what `read_size` does, or ``read``, which may remember it.

    None if the header can't be read or comes from a pipe; (0, 0) for a missing file.
    """
    if not path.is_file():
        return None if str(path) == "-" or path.exists() else (0, 0)
    try:
        return read(path)
    except Exception:
        return None
