"""How much work a batch is, by the headers of its files: what ``auto`` chooses a backend by."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from agsr.decode import formats_of
from agsr.jpeg import quality_of


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


def jpeg_quality(path: Path) -> int | None:
    """Quality of a JPEG file, see `agsr.jpeg.quality_of`; None for all that is none."""
    if not path.is_file():
        return None
    try:
        with Image.open(path, formats=["JPEG"]) as image:
            return quality_of(image)
    except Exception:  # damaged files make Pillow raise nearly anything
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
