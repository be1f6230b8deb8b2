"""Downsample the network's output to other sizes, band by band, or crop it.

An antialiased bicubic filter (a = -0.5) in float32 per channel, rounded once; colour is weighted by
opacity. Pillow filters along rows. Along columns it would need the whole picture, so the same sums
are computed here, in the same order, from the few rows that each result row depends on. Rows are
always filtered first; Pillow starts with the cheaper direction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agsr.image.picture import Picture, RowBands, as_row_bands, materialize, rounded, samples_of

Planes = NDArray[np.float32]
"""``(H, W, C)``."""

_REACH = 2.0
"""Support radius of the unscaled bicubic kernel, in pixels."""

_LEAST_OPACITY = 0.5 / 255
"""Smallest opacity of floats in [0, 1]; half a level for integers."""


def downsample(picture: Picture, height: int, width: int) -> Picture:
    """Downsample a picture; one of the target size is returned unchanged.

    >>> downsample(Picture(np.zeros((8, 8), np.uint8)), 3, 2).pixels.shape
    (3, 2)
    """
    if picture.pixels.shape[:2] == (height, width):
        return picture
    return materialize(downsample_bands(as_row_bands(picture), height, width))


def downsample_bands(row_bands: RowBands, height: int, width: int, margin: int = 0) -> RowBands:
    """Downsample a picture that is computed band by band.

    Args:
        row_bands: The picture, with a margin that the filter reads but the result excludes.
        height: Height of the result, pixels.
        width: Width of the result, pixels.
        margin: Pixels on each side of the picture.
    """
    if (row_bands.height - 2 * margin, row_bands.width - 2 * margin) != (height, width):
        weighted = row_bands.opacity and not row_bands.separate_alpha
        bands = _bands(row_bands, height, width, margin, weighted)
        return row_bands.with_bands(bands, height=height, width=width)
    return crop_bands(row_bands, height, width, margin)


def crop_bands(row_bands: RowBands, height: int, width: int, margin: int = 0) -> RowBands:
    """Crop a picture that is computed band by band; its other rows are computed, too.

    Args:
        row_bands: The picture.
        height: Height of the result, pixels.
        width: Width of the result, pixels.
        margin: Pixels above and left of the result; the rest is cropped below and at the right.
    """
    if (row_bands.height, row_bands.width) == (height, width):
        return row_bands
    bands = _cropped(row_bands, height, width, margin)
    return row_bands.with_bands(bands, height=height, width=width)


def _cropped(row_bands: RowBands, height: int, width: int, margin: int) -> Iterator[Picture]:
    across = slice(margin, margin + width)
    top = 0
    with closing(row_bands):
        for band in row_bands.bands:
            first, last = margin - top, margin + height - top
            down = slice(max(first, 0), max(last, 0))
            if len(pixels := band.pixels[down, across]):
                yield Picture(pixels, None if band.alpha is None else band.alpha[down, across])
            top += len(band.pixels)


def _bands(
    row_bands: RowBands, height: int, width: int, margin: int, weighted: bool
) -> Iterator[Picture]:
    with closing(row_bands):
        parts = row_bands.iter_bands()
        narrow = (_resize_rows(_planes(part, weighted), width, margin) for part in parts)
        for planes in _resize_columns(narrow, row_bands.height, height, margin):
            yield _picture(planes, row_bands, weighted)


def _planes(band: Picture, weighted: bool) -> Planes:
    """Return colour and alpha as planes; if weighted, colour times alpha between them."""
    planes = samples_of(band).astype(np.float32)
    if not weighted:
        return planes
    colour, alpha = planes[..., :-1], planes[..., -1:]
    return np.concatenate([colour, colour * alpha, alpha], axis=2)


def _picture(planes: Planes, like: RowBands, weighted: bool) -> Picture:
    """Reassemble the planes of `_planes` to a rounded picture."""
    count = like.channels
    colour, alpha = planes[..., :count], None
    if weighted:
        product, opacity = planes[..., count:-1], planes[..., -1:]
        # Where almost nothing is visible, the quotient would be noise.
        least = 0.5 if like.dtype.kind == "u" else _LEAST_OPACITY
        colour = np.where(opacity < least, colour, product / opacity.clip(least))
    if like.opacity:
        alpha = rounded(planes[..., -1], like.dtype)
    return Picture(rounded(colour if count == 3 else colour[..., 0], like.dtype), alpha)


def _resize_rows(planes: Planes, width: int, margin: int) -> Planes:
    """``(H, W, C)`` → ``(H, width, C)``."""
    height, old, channels = planes.shape
    if width == old - 2 * margin:
        return planes[:, margin : old - margin]
    inside = (margin, 0, old - margin, height)  # the filter may read outside it
    result = np.empty((height, width, channels), np.float32)
    for channel in range(channels):
        image = Image.fromarray(np.ascontiguousarray(planes[..., channel]))
        narrow = image.resize((width, height), Image.Resampling.BICUBIC, inside)
        result[..., channel] = np.asarray(narrow)
    return result


def _resize_columns(
    bands: Iterable[Planes], old: int, height: int, margin: int
) -> Iterator[Planes]:
    """Filter along columns: bands of ``old`` rows in total → bands of ``height`` rows in total."""
    if height == old:
        yield from bands
        return
    filters = [_filter(row, old, height, margin) for row in range(height)]
    done = first = 0  # finished result rows; index of the first buffered row
    buffer: Planes | None = None
    for band in bands:
        buffer = band if buffer is None else np.concatenate([buffer, band])
        ready = done
        while ready < height and filters[ready].stop <= first + len(buffer):
            ready += 1
        if ready > done:
            yield np.stack([f.applied(buffer[f.start - first :]) for f in filters[done:ready]])
            done = ready
        if done < height:
            start = min(filters[done].start, first + len(buffer))
            buffer, first = buffer[start - first :].copy(), start


@dataclass(frozen=True)
class _Filter:
    """Source rows and weights of one result row."""

    start: int
    weights: tuple[float, ...]

    @property
    def stop(self) -> int:
        return self.start + len(self.weights)

    def applied(self, rows: Planes) -> Planes:
        """Return the weighted sum of the first rows, accumulated in order in float64."""
        total = np.zeros(rows.shape[1:])
        product = np.empty_like(total)
        for row, weight in zip(rows, self.weights, strict=False):
            total += np.multiply(row, weight, out=product, dtype=np.float64)
        return total.astype(np.float32)


def _filter(row: int, old: int, new: int, margin: int) -> _Filter:
    """Return Pillow's filter for a result row."""
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
    """Return Keys' kernel with a = -0.5, in Pillow's order of operations."""
    a, x = -0.5, abs(x)
    if x < 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0
