"""What alpha asks of enlarging: colour under transparent pixels, and an alpha without overshoot."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agsr.contract import SCALE

Plane = NDArray[Any]


def bounded(large: Plane, small: Plane, top: int = 0) -> Plane:
    """An enlarged plane without values beyond those of the nearest four pixels of the original.

    A network overshoots beside hard edges. In a photograph that is crispness; in alpha it would be
    a ghost outline where the original is fully transparent or fully opaque.

    Args:
        large: ``(4H, 4W)``, or a band of it that begins and ends between pixels of ``small``.
        small: ``(H, W)`` of the same type, of which it was made.
        top: Of the band, in rows of the whole enlarged plane.
    """
    first, count = top // SCALE, len(large) // SCALE
    around = np.arange(first - 1, first + count + 1).clip(0, len(small) - 1)
    low, high = (_of_nearest_four(small[around], choose) for choose in (np.minimum, np.maximum))
    return np.asarray(np.clip(large, low, high))


def without_hidden_colour(pixels: Plane, alpha: Plane | None) -> Plane:
    """Give fully transparent pixels the colour of the nearest visible one.

    What lies under them is arbitrary, often black, and would bleed into the visible edge. OpenCV
    counts distances in 16 bits: farther than some 65 000 pixels from any visible one, the colour
    may be another, which is far from every edge.
    """
    if alpha is None or alpha.all() or not alpha.any():
        return pixels
    import cv2  # slow to load, and needed here only

    hidden = alpha == 0
    _, nearest = cv2.distanceTransformWithLabels(
        hidden.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    # Labels number the visible pixels from 1, in an order of OpenCV's; this is each one's colour.
    colours = np.zeros((int(nearest.max()) + 1, *pixels.shape[2:]), pixels.dtype)
    colours[nearest[~hidden]] = pixels[~hidden]
    shown: Plane = pixels.copy()
    shown[hidden] = colours[nearest[hidden]]
    return shown


def _of_nearest_four(rows: Plane, choose: np.ufunc) -> Plane:
    """The least or largest of the four original pixels whose centres are around each large one.

    Args:
        rows: Of the original, with one more above and below than are asked for.
        choose: Minimum or maximum.
    """
    padded = np.pad(rows, ((0, 0), (1, 1)), mode="edge")
    pairs = choose(padded[:-1], padded[1:])
    pairs = choose(pairs[:, :-1], pairs[:, 1:])
    height, width = len(rows) - 2, rows.shape[1]
    offset = SCALE // 2  # pixel centres of the original lie in the middle of 4x4 large ones
    repeated = pairs.repeat(SCALE, axis=0).repeat(SCALE, axis=1)
    return np.asarray(repeated[offset : offset + SCALE * height, offset : offset + SCALE * width])
