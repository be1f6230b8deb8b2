"""Estimate the quality of a JPEG file from its luminance quantization table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

BLOCKY: Final = 80
"""Up to this quality, weights for compressed inputs are suggested: by LPIPS, results are closer to
the original at 75, equally close at 90; see docs/model-card.md."""

_LUMINANCE: Final = np.array(
    [
        *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
        *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
        *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
        *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
    ]
)
"""Table K.1 of ITU-T T.81, row by row; most encoders scale it."""

_MARKER, _QUANTIZATION = 0xFF, 0xDB

_ZIGZAG: Final = [
    *(0, 1, 5, 6, 14, 15, 27, 28, 2, 4, 7, 13, 16, 26, 29, 42),
    *(3, 8, 12, 17, 25, 30, 41, 43, 9, 11, 18, 24, 31, 40, 44, 53),
    *(10, 19, 23, 32, 39, 45, 52, 54, 20, 22, 33, 38, 46, 51, 55, 60),
    *(21, 34, 37, 47, 50, 56, 59, 61, 35, 36, 48, 49, 57, 58, 62, 63),
]
"""Position in a JPEG file of each table entry, row by row."""

_COARSEST: Final = [0, 1, 8]
"""Indices of DC and the lowest frequencies, where encoders' tables differ least."""


def first_table(stream: bytes) -> list[int]:
    """Return the first quantization table of a JPEG stream, row by row; empty if none.

    Args:
        stream: Starts at the first marker, as in TIFF's JPEGTables tag.
    """
    at = 2
    while at + 4 <= len(stream) and stream[at] == _MARKER:
        size = int.from_bytes(stream[at + 2 : at + 4], "big")
        if stream[at + 1] == _QUANTIZATION:
            wide = 1 + (stream[at + 4] >> 4)
            values = stream[at + 5 : at + 5 + 64 * wide]
            steps = [int.from_bytes(values[n : n + wide], "big") for n in range(0, 64 * wide, wide)]
            return [steps[_ZIGZAG[n]] for n in range(64)]
        at += 2 + size
    return []


def table_quality(steps: Sequence[int]) -> int:
    """Return the libjpeg quality that matches a luminance table, row by row.

    >>> table_quality(_LUMINANCE)
    50
    """
    table = np.array(steps)
    qualities = np.arange(1, 101)
    percent = np.where(qualities < 50, 5000 // qualities, 200 - 2 * qualities)
    usual = ((_LUMINANCE * percent[:, None] + 50) // 100).clip(1, 255)
    coarse = np.abs(usual[:, _COARSEST].sum(axis=1) - table[_COARSEST].sum())
    whole = np.abs(usual.sum(axis=1) - table.sum())
    return int(qualities[np.lexsort((whole, coarse))[0]])
