"""Upscale alpha without overshoot, and fill the colour under transparent pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[Any]


def bounded(large: Plane, small: Plane, top: int = 0) -> Plane:
    """Clip an upscaled plane to the range of the nearest four source pixels.

    A network overshoots beside hard edges. In a photograph this looks crisp; in alpha it would be a
    ghost outline where the source is fully transparent or opaque.

    Args:
        large: ``(sH, sW)`` for any scale s, or a band that begins and ends between pixels of
            ``small``.
        small: The source, ``(H, W)``, of the same type.
        top: First row of the band within the whole upscaled plane.
    """
    scale = large.shape[1] // small.shape[1]
    first, count = top // scale, len(large) // scale
    around = np.arange(first - 1, first + count + 1).clip(0, len(small) - 1)
    low, high = (
        _of_nearest_four(small[around], scale, choose) for choose in (np.minimum, np.maximum)
    )
    return np.asarray(np.clip(large, low, high))


def without_hidden_colour(pixels: Plane, alpha: Plane | None) -> Plane:
    """Give fully transparent pixels the colour of the nearest visible one.

    The hidden colour is arbitrary, often black, and would bleed into the visible edge. OpenCV
    stores 16-bit distances: farther than about 65 000 pixels from any visible pixel, and so from
    every edge, another colour may be chosen.
    """
    if alpha is None or alpha.all() or not alpha.any():
        return pixels
    import cv2  # slow to load, needed only here

    hidden = alpha == 0
    _, nearest = cv2.distanceTransformWithLabels(
        hidden.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    # OpenCV labels visible pixels from 1 in its own order; look up the colour by label.
    colours = np.zeros((int(nearest.max()) + 1, *pixels.shape[2:]), pixels.dtype)
    colours[nearest[~hidden]] = pixels[~hidden]
    shown: Plane = pixels.copy()
    shown[hidden] = colours[nearest[hidden]]
    return shown


def _of_nearest_four(rows: Plane, scale: int, choose: np.ufunc) -> Plane:
    """Return, for each large pixel, the extreme of the four source pixels around it.

    With an odd scale, some large pixels lie on a source pixel; its neighbours on both sides count.

    Args:
        rows: Source rows, with one extra row above and below.
        scale: Large pixels per source pixel along each axis.
        choose: ``np.minimum`` or ``np.maximum``.
    """
    padded = np.pad(rows, ((0, 0), (1, 1)), mode="edge")
    pairs = choose(padded[:-1], padded[1:])
    pairs = choose(pairs[:, :-1], pairs[:, 1:])
    height, width = len(rows) - 2, rows.shape[1]
    return _enlarged(_enlarged(pairs, height, scale, 0, choose), width, scale, 1, choose)


def _enlarged(pairs: Plane, count: int, scale: int, axis: int, choose: np.ufunc) -> Plane:
    """Repeat the extremes of neighbouring source pixels along one axis, for every large pixel.

    Args:
        pairs: Extremes of pixels k - 1 and k, for k from 0 to ``count``.
        count: Source pixels along the axis.
        scale: Large pixels per source pixel.
        axis: The axis.
        choose: ``np.minimum`` or ``np.maximum``.
    """
    # Centres of the large pixels, in units of 1 / (2 scale), from that of the first source pixel.
    centres = 2 * np.arange(count * scale) + 1 - scale
    after = pairs.take(centres // (2 * scale) + 1, axis=axis)
    if scale % 2 == 0:  # no centre lies on a source pixel
        return np.asarray(after)
    return np.asarray(choose(after, pairs.take(-(-centres // (2 * scale)), axis=axis)))
