"""How strongly a JPEG file is compressed, by the table its brightness was divided by."""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image

BLOCKY: Final = 80
"""Up to this quality it is told that there are weights for compressed inputs: at 75 they are nearer
to the original than others by LPIPS, at 90 as near; see docs/model-card.md."""

_LUMINANCE: Final = np.array(
    [
        *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
        *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
        *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
        *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
    ]
)
"""Table K.1 of ITU-T T.81, row by row, whose multiples most encoders take."""

_COARSEST: Final = [0, 1, 8]
"""What is the same over a block, and its slopes. Tables of other encoders differ least in these."""


def quality_of(image: Image.Image) -> int | None:
    """Quality of an opened JPEG file, 1 to 100, as libjpeg counts; None for other files.

    Encoders with tables of their own get the quality that divides the coarsest structures as much.
    """
    table = np.array(getattr(image, "quantization", {}).get(0, ()))
    if not table.size:
        return None
    qualities = np.arange(1, 101)
    percent = np.where(qualities < 50, 5000 // qualities, 200 - 2 * qualities)
    usual = ((_LUMINANCE * percent[:, None] + 50) // 100).clip(1, 255)
    coarse = np.abs(usual[:, _COARSEST].sum(axis=1) - table[_COARSEST].sum())
    whole = np.abs(usual.sum(axis=1) - table.sum())
    return int(qualities[np.lexsort((whole, coarse))[0]])
