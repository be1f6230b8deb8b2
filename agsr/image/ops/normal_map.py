"""Normal maps: normalise vectors before and after the network.

A tangent-space normal map stores x, y and z in [-1, 1] as red, green and blue in [0, 1]. Resampling
averages vectors, which shortens them and flattens the lighting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agsr.errors import ImageError
from agsr.image.picture import Picture, Pixels, RowBands, as_row_bands, materialize, rounded

Vectors = NDArray[np.float32]
"""``(H, W, 3)`` in [-1, 1]."""

_OUTWARDS = np.array([0, 0, 1], np.float32)

_SHORTEST, _LONGEST = 0.25, 1.5
"""Lengths beyond these are not rounded or compressed vectors but unused areas, grey or black."""

_DOUBTFUL = 0.15
"""Deviation of a length from 1 that exceeds rounding and compression."""


_ROUNDING = 0.02
"""Error of z around 0 in compressed 8-bit maps."""

_MIXED = 0.1
"""Threshold for the share of vectors below the surface and of vectors far from unit length. Only
photographs exceed both: tangent-space maps have few of the former, object-space maps few of the
latter."""

_LEANING = 0.3
"""Limit for the mean of x and y; photographs too dark to contain z exceed it."""


def usable(picture: Picture) -> Picture:
    """Prepare a normal map for the network: blue is z, and every pixel has a direction.

    If a file stores only x and y, as BC5 does, decoders leave blue constant or black. Unused areas
    are often grey or black; they are set to point outwards.

    Raises:
        ImageError: The picture is grey.
    """
    if picture.pixels.ndim == 2:
        raise ImageError("the picture is grey, and a normal map has red, green and blue")
    change = _with_directions if _holds_z(picture.pixels) else _with_z
    return materialize(_changed(as_row_bands(picture), change))


def points_outwards(picture: Picture) -> bool:
    """Return True if no vector points below the surface, as in tangent space."""
    z = picture.pixels[..., 2]
    middle = _white(z.dtype) / 2
    return bool(z.min() >= (np.floor(middle) if z.dtype.kind == "u" else middle - 1e-3))


def normalised(row_bands: RowBands, *, outwards: bool) -> RowBands:
    """Normalise all vectors of a normal map to unit length.

    Args:
        row_bands: RGB with or without alpha.
        outwards: Clip vectors that point below the surface.
    """

    def change(vectors: Vectors) -> Vectors:
        if outwards:
            vectors[..., 2] = vectors[..., 2].clip(0)
        return _with_directions(vectors, shortest=0.01, longest=np.inf)

    return _changed(row_bands, change)


def doubt(picture: Picture) -> str | None:
    """Return why a picture may not be an RGB normal map; None if it looks like one."""
    pixels, alpha = picture.pixels, picture.alpha
    if pixels.ndim == 2:
        return None  # rejected by `usable`
    if _is_constant(pixels[..., 0]) and alpha is not None and not _is_constant(alpha):
        return "red is constant; if x is in alpha (DXT5nm), use --separate-alpha instead"
    found = _statistics(picture)
    if not _holds_z(pixels):
        lean = float(np.hypot(*found.mean[:2]))
        return _question(f"x and y lean to one side, by {lean:.2f}") if lean > _LEANING else None
    if found.off > 0.5:
        return _question(f"{found.off:.0%} of its vectors are far from unit length")
    if min(found.off, found.below) > _MIXED:
        return _question(
            f"{found.below:.0%} of its vectors point below the surface, and {found.off:.0%} are "
            "far from unit length"
        )
    return None


class _Statistics(NamedTuple):
    """Statistics that distinguish a normal map from a photograph."""

    off: float
    """Share of the vectors that are far from unit length."""
    below: float
    """Share of the vectors that point below the surface; about half in object space."""
    mean: NDArray[np.float64]
    """Mean of x, y and z; x and y are 0 for a surface without edges."""


def _statistics(picture: Picture) -> _Statistics:
    size = picture.pixels[..., 0].size
    off, below, sums = 0, 0, np.zeros(3)
    for band in as_row_bands(picture).iter_bands():
        vectors = _vectors(band.pixels)
        off += np.count_nonzero(abs(_lengths(vectors) - 1) > _DOUBTFUL)
        below += np.count_nonzero(vectors[..., 2] < -_ROUNDING)
        sums += vectors.sum((0, 1), np.float64)
    return _Statistics(off / size, below / size, sums / size)


def _question(why: str) -> str:
    return f"{why}; is it a normal map?"


def _changed(row_bands: RowBands, change: Callable[[Vectors], Vectors]) -> RowBands:
    bands = (
        replace(band, pixels=_colours(change(_vectors(band.pixels)), row_bands.dtype))
        for band in row_bands.iter_bands()
    )
    return row_bands.with_bands(bands)


def _with_z(vectors: Vectors) -> Vectors:
    x, y = vectors[..., 0], vectors[..., 1]
    return np.stack([x, y, np.sqrt((1 - x * x - y * y).clip(0))], axis=2)


def _with_directions(
    vectors: Vectors, shortest: float = _SHORTEST, longest: float = _LONGEST
) -> Vectors:
    """Normalise vectors; those shorter or longer than the limits are set to point outwards."""
    length = _lengths(vectors)[..., None]
    unit = vectors / length.clip(shortest)
    return np.asarray(np.where((length < shortest) | (length > longest), _OUTWARDS, unit))


def _lengths(vectors: Vectors) -> Vectors:
    return np.asarray(np.sqrt(np.square(vectors).sum(2)))


def _holds_z(pixels: Pixels) -> bool:
    """Return True if blue varies, and points outwards somewhere."""
    blue = pixels[..., 2]
    return not _is_constant(blue) and bool(blue.max() > _white(blue.dtype) / 2)


def _is_constant(plane: Pixels) -> bool:
    return bool((plane == plane[0, 0]).all())


def _vectors(pixels: Pixels) -> Vectors:
    """Map colours from the type's full range to [-1, 1]."""
    return np.asarray(pixels.astype(np.float32) * np.float32(2 / _white(pixels.dtype)) - 1)


def _colours(vectors: Vectors, dtype: np.dtype[Any]) -> Any:
    levels: Any = (vectors + 1) * np.float32(_white(dtype) / 2)
    return levels if dtype.kind == "f" else rounded(levels, dtype)


def _white(dtype: np.dtype[Any]) -> float:
    return 1.0 if dtype.kind == "f" else float(np.iinfo(dtype).max)
