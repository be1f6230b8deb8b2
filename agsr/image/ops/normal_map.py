"""Normal maps: vectors as colours, of unit length before the network and after it.

A tangent-space normal map holds x, y and z of [-1, 1] as red, green and blue of [0, 1]. Enlarging
and shrinking average vectors, which makes them shorter, and lighting flatter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agsr.errors import ImageError
from agsr.image.picture import Picture, Pixels, Stripes, gathered, in_stripes, rounded

Vectors = NDArray[np.float32]
"""``(H, W, 3)`` in [-1, 1]."""

_OUTWARDS = np.array([0, 0, 1], np.float32)

_SHORTEST, _LONGEST = 0.25, 1.5
"""Lengths beyond these are no rounded or compressed vectors, but grey or black where none is."""

_DOUBTFUL = 0.15
"""Deviation of a length from 1 that is more than rounding or compression."""


_ROUNDING = 0.02
"""Of z around 0, in 8 bits and compressed."""

_MIXED = 0.1
"""Share of vectors below the surface, and of those far from unit length, that only photographs
exceed both: maps in tangent space have few of the first, maps in object space few of the second."""

_LEANING = 0.3
"""Mean of x and y that is no surface's; photographs too dark to hold z exceed it."""


def usable(picture: Picture) -> Picture:
    """A normal map as a network may see it: blue is z, and every pixel has a direction.

    Where a file holds x and y only, as of BC5, decoders make blue constant or black. Unused places
    are often grey or black, and point outwards then.

    Raises:
        ImageError: The picture is grey.
    """
    if picture.pixels.ndim == 2:
        raise ImageError("the picture is grey, and a normal map has red, green and blue")
    change = _with_directions if _holds_z(picture.pixels) else _with_z
    return gathered(_changed(in_stripes(picture), change))


def points_outwards(picture: Picture) -> bool:
    """Whether no vector points below the surface: in tangent space none does."""
    z = picture.pixels[..., 2]
    middle = _white(z.dtype) / 2
    return bool(z.min() >= (np.floor(middle) if z.dtype.kind == "u" else middle - 1e-3))


def normalised(stripes: Stripes, *, outwards: bool) -> Stripes:
    """A normal map with all vectors at unit length.

    Args:
        stripes: Red, green and blue, with or without alpha.
        outwards: No vector is to point below the surface.
    """

    def change(vectors: Vectors) -> Vectors:
        if outwards:
            vectors[..., 2] = vectors[..., 2].clip(0)
        return _with_directions(vectors, shortest=0.01, longest=np.inf)

    return _changed(stripes, change)


def doubt(picture: Picture) -> str | None:
    """Why a picture may be no normal map of red, green and blue; None if it looks like one."""
    pixels, alpha = picture.pixels, picture.alpha
    if pixels.ndim == 2:
        return None  # which `usable` refuses
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
    """What tells a normal map from a photograph."""

    off: float
    """Share of the vectors that are far from unit length."""
    below: float
    """Share of those that point below the surface; about half in object space."""
    mean: NDArray[np.float64]
    """Of x, y and z; x and y of a surface that has no edge are 0."""


def _statistics(picture: Picture) -> _Statistics:
    size = picture.pixels[..., 0].size
    off, below, sums = 0, 0, np.zeros(3)
    for band in in_stripes(picture).cut():
        vectors = _vectors(band.pixels)
        off += np.count_nonzero(abs(_lengths(vectors) - 1) > _DOUBTFUL)
        below += np.count_nonzero(vectors[..., 2] < -_ROUNDING)
        sums += vectors.sum((0, 1), np.float64)
    return _Statistics(off / size, below / size, sums / size)


def _question(why: str) -> str:
    return f"{why}; is it a normal map?"


def _changed(stripes: Stripes, change: Callable[[Vectors], Vectors]) -> Stripes:
    bands = (
        replace(band, pixels=_colours(change(_vectors(band.pixels)), stripes.dtype))
        for band in stripes.cut()
    )
    return stripes.remade(bands)


def _with_z(vectors: Vectors) -> Vectors:
    x, y = vectors[..., 0], vectors[..., 1]
    return np.stack([x, y, np.sqrt((1 - x * x - y * y).clip(0))], axis=2)


def _with_directions(
    vectors: Vectors, shortest: float = _SHORTEST, longest: float = _LONGEST
) -> Vectors:
    """Of unit length; what is shorter or longer than that points outwards."""
    length = _lengths(vectors)[..., None]
    unit = vectors / length.clip(shortest)
    return np.asarray(np.where((length < shortest) | (length > longest), _OUTWARDS, unit))


def _lengths(vectors: Vectors) -> Vectors:
    return np.asarray(np.sqrt(np.square(vectors).sum(2)))


def _holds_z(pixels: Pixels) -> bool:
    """Whether blue differs, and points outwards anywhere."""
    blue = pixels[..., 2]
    return not _is_constant(blue) and bool(blue.max() > _white(blue.dtype) / 2)


def _is_constant(plane: Pixels) -> bool:
    return bool((plane == plane[0, 0]).all())


def _vectors(pixels: Pixels) -> Vectors:
    """Colours → vectors; 0 and the type's largest value are the ends."""
    return np.asarray(pixels.astype(np.float32) * np.float32(2 / _white(pixels.dtype)) - 1)


def _colours(vectors: Vectors, dtype: np.dtype[Any]) -> Any:
    levels: Any = (vectors + 1) * np.float32(_white(dtype) / 2)
    return levels if dtype.kind == "f" else rounded(levels, dtype)


def _white(dtype: np.dtype[Any]) -> float:
    return 1.0 if dtype.kind == "f" else float(np.iinfo(dtype).max)
