"""What the headers of a batch's files tell before anything is decoded.

How much work they are, by which ``auto`` chooses a backend and progress estimates the time left,
and how strongly they are compressed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from agsr.image.compression import Compression, compression_of
from agsr.image.decode import formats_of


def count_pixels(files: Sequence[Path], enough: int = 1 << 20) -> int | None:
    """Pixels of image files by their headers, counted until there are enough.

    None where a header can't be read, or comes by a pipe; a file that is not there has none.
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


def work_of(files: Sequence[Path], most: int = 5000) -> list[float]:
    """Pixels of each file by its header; where that is unknown, the mean of the others.

    Args:
        files: Image files.
        most: Headers that are read; further files count as the mean.
    """
    sizes = [stored_size(file) for file in files[:most]]
    known = [math.prod(size) for size in sizes if size]
    mean = max(sum(known) / len(known) if known else 1.0, 1.0)
    counts = [float(math.prod(size)) if size else mean for size in sizes]
    return [max(count, 1.0) for count in counts] + [mean] * (len(files) - len(counts))


def file_compression(path: Path) -> Compression | None:
    """Lossy compression of an image file; None for one that has none or can't be read."""
    if not path.is_file():  # of a pipe, the beginning would be lost
        return None
    try:
        with path.open("rb") as stream:
            return compression_of(stream)
    except OSError:
        return None


def stored_size(path: Path) -> tuple[int, int] | None:
    """Width and height in an image file's header, before any rotation.

    None where the header can't be read or comes by a pipe; (0, 0) for a file that is not there.
    """
    if not path.is_file():
        return None if str(path) == "-" or path.exists() else (0, 0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=formats_of(path.name)) as image:
                return int(image.width), int(image.height)
    except Exception:  # damaged files make Pillow raise nearly anything
        return None
