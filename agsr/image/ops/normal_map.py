"""Normal maps: vectors as colours, of unit length before the network and after it.

A tangent-space normal map holds x, y and z of [-1, 1] as red, green and blue of [0, 1]. Enlarging
and shrinking average vectors, which makes them shorter, and lighting flatter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

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
    if not _holds_z(pixels):
        return None
    lengths = (_lengths(_vectors(band.pixels)) for band in in_stripes(picture).cut())
    off = sum(np.count_nonzero(abs(length - 1) > _DOUBTFUL) for length in lengths)
    share = off / pixels[..., 0].size
    if share <= 0.5:
        return None
    return f"{share:.0%} of its vectors are far from unit length; is it a normal map?"


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
