"""How strongly a JPEG file is compressed, by the table its brightness was divided by."""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image

BLOCKY: Final = 80
"""Up to this quality the network shows what compression left behind, as blocks and fringes."""

_LUMINANCE: Final = np.array(
    [
        *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
        *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
        *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
        *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
    ]
)
"""Table K.1 of ITU-T T.81, whose multiples most encoders take."""


def _sums() -> list[int]:
    """By quality from 1 on: the sum of the table that libjpeg makes for it."""
    qualities = np.arange(1, 101)
    percent = np.where(qualities < 50, 5000 // qualities, 200 - 2 * qualities)
    tables = (_LUMINANCE * percent[:, None] + 50) // 100
    return [int(total) for total in tables.clip(1, 255).sum(axis=1)]


def quality_of(image: Image.Image) -> int | None:
    """Quality of an opened JPEG file, 1 to 100, as libjpeg counts; None for other files.

    Encoders with tables of their own get the quality whose table divides as much on the whole.
    """
    table = getattr(image, "quantization", {}).get(0)
    if table is None:
        return None
    total = sum(table)
    return 1 + int(np.argmin([abs(total - other) for other in _sums()]))
