"""The shrinking from ×4 to other sizes, row by row: `Stripes` in, `Stripes` out.

An antialiased bicubic filter (a = -0.5), once per channel in float32, rounded once; colour is
weighted by opacity meanwhile. Along rows it is Pillow's. Along columns Pillow would need them
whole; the same sums in the same order are made here of the few rows that each result row depends
on. Rows come first always; Pillow begins with what costs less.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agsr.image.picture import Picture, Stripes, gathered, in_stripes, rounded, samples_of

Planes = NDArray[np.float32]
"""``(H, W, C)``."""

_REACH = 2.0
"""Pixels to each side that the bicubic kernel reads where it isn't stretched."""

_LEAST_OPACITY = 0.5 / 255
"""Of floats in [0, 1]; of integers it is half a level."""


def shrunk(picture: Picture, height: int, width: int) -> Picture:
    """A picture at a smaller size; of that size already, it is returned as it is."""
    if picture.pixels.shape[:2] == (height, width):
        return picture
    return gathered(shrunk_stripes(in_stripes(picture), height, width))


def shrunk_stripes(stripes: Stripes, height: int, width: int, margin: int = 0) -> Stripes:
    """`shrunk` for what is made band by band.

    Args:
        stripes: A picture, with a margin that the filter reads and that is not in the result.
        height: Of the result, pixels.
        width: Of the result, pixels.
        margin: Pixels at each side of the picture.
    """
    if (stripes.height - 2 * margin, stripes.width - 2 * margin) != (height, width):
        weighted = stripes.opacity and not stripes.separate_alpha
        bands = _bands(stripes, height, width, margin, weighted)
    elif margin:
        bands = _inside(stripes, margin)
    else:
        return stripes
    return stripes.remade(bands, height=height, width=width)


def _inside(stripes: Stripes, margin: int) -> Iterator[Picture]:
    """Bands without the margin."""
    across = slice(margin, stripes.width - margin)
    top = 0
    with closing(stripes):
        for band in stripes.bands:
            first, last = margin - top, stripes.height - margin - top
            down = slice(max(first, 0), max(last, 0))
            if len(pixels := band.pixels[down, across]):
                yield Picture(pixels, None if band.alpha is None else band.alpha[down, across])
            top += len(band.pixels)


def _bands(
    stripes: Stripes, height: int, width: int, margin: int, weighted: bool
) -> Iterator[Picture]:
    with closing(stripes):
        parts = stripes.cut()
        wide = (_narrowed(_planes(part, weighted), width, margin) for part in parts)
        for planes in _shortened(wide, stripes.height, height, margin):
            yield _picture(planes, stripes, weighted)


def _planes(band: Picture, weighted: bool) -> Planes:
    """Colour, if it is weighted also colour times alpha, and alpha if there is one."""
    planes = samples_of(band).astype(np.float32)
    if not weighted:
        return planes
    colour, alpha = planes[..., :-1], planes[..., -1:]
    return np.concatenate([colour, colour * alpha, alpha], axis=2)


def _picture(planes: Planes, like: Stripes, weighted: bool) -> Picture:
    """What `_planes` has taken apart, rounded."""
    count = like.channels
    colour, alpha = planes[..., :count], None
    if weighted:
        product, opacity = planes[..., count:-1], planes[..., -1:]
        # Where next to nothing is visible, a quotient would be noise.
        least = 0.5 if like.dtype.kind == "u" else _LEAST_OPACITY
        colour = np.where(opacity < least, colour, product / opacity.clip(least))
    if like.opacity:
        alpha = rounded(planes[..., -1], like.dtype)
    return Picture(rounded(colour if count == 3 else colour[..., 0], like.dtype), alpha)


def _narrowed(planes: Planes, width: int, margin: int) -> Planes:
    """``(H, W, C)`` → ``(H, width, C)``."""
    height, old, channels = planes.shape
    if width == old - 2 * margin:
        return planes[:, margin : old - margin]
    inside = (margin, 0, old - margin, height)  # what the filter reads may lie outside
    result = np.empty((height, width, channels), np.float32)
    for channel in range(channels):
        image = Image.fromarray(np.ascontiguousarray(planes[..., channel]))
        narrow = image.resize((width, height), Image.Resampling.BICUBIC, inside)
        result[..., channel] = np.asarray(narrow)
    return result


def _shortened(bands: Iterable[Planes], old: int, height: int, margin: int) -> Iterator[Planes]:
    """Bands of ``old`` rows altogether → bands of ``height`` rows altogether."""
    if height == old:
        yield from bands
        return
    filters = [_filter(row, old, height, margin) for row in range(height)]
    done = first = 0  # result rows that are made; number of the first row that is held
    held: Planes | None = None
    for band in bands:
        held = band if held is None else np.concatenate([held, band])
        ready = done
        while ready < height and filters[ready].stop <= first + len(held):
            ready += 1
        if ready > done:
            yield np.stack([f.applied(held[f.start - first :]) for f in filters[done:ready]])
            done = ready
        if done < height:
            keep = min(filters[done].start, first + len(held))
            held, first = held[keep - first :].copy(), keep


@dataclass(frozen=True)
class _Filter:
    """What a result row is made of."""

    start: int
    weights: tuple[float, ...]

    @property
    def stop(self) -> int:
        return self.start + len(self.weights)

    def applied(self, rows: Planes) -> Planes:
        """The weighted sum of the first rows, one after the other in double precision."""
        total = np.zeros(rows.shape[1:])
        product = np.empty_like(total)
        for row, weight in zip(rows, self.weights, strict=False):
            total += np.multiply(row, weight, out=product, dtype=np.float64)
        return total.astype(np.float32)


def _filter(row: int, old: int, new: int, margin: int) -> _Filter:
    """Pillow's filter for a row of the result."""
    scale = (old - 2 * margin) / new
    stretch = max(scale, 1.0)
    centre, reach = margin + (row + 0.5) * scale, _REACH * stretch
    start, stop = max(int(centre - reach + 0.5), 0), min(int(centre + reach + 0.5), old)
    weights = [_cubic((x - centre + 0.5) * (1 / stretch)) for x in range(start, stop)]
    total = 0.0
    for weight in weights:  # Python's sum() compensates rounding errors since 3.12
        total += weight
    return _Filter(start, tuple(weight / total for weight in weights))


def _cubic(x: float) -> float:
    """Keys' kernel with a = -0.5, in the order of Pillow's operations."""
    a, x = -0.5, abs(x)
    if x < 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0
