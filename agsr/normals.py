"""Normal maps: vectors as colours, three before the network and of unit length after it.

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
from agsr.picture import Picture, Pixels, Stripes, gathered, in_stripes

Vectors = NDArray[np.float32]
"""``(H, W, 3)`` in [-1, 1]."""

_OUTWARDS = np.array([0, 0, 1], np.float32)

_SHORTEST = 1e-3
"""Length of a vector that still has a direction."""

_ROWS = 64
"""At work at a time; in float32 they are many times their size."""


def with_blue(picture: Picture) -> Picture:
    """A normal map whose blue is z, made of x and y where the file holds two channels only.

    Those are textures of BC5, of which decoders make a constant blue.

    Raises:
        ImageError: The picture is grey.
    """
    pixels = picture.pixels
    if pixels.ndim == 2:
        raise ImageError("the picture is grey, and a normal map has red, green and blue")
    if (pixels[..., 2] != pixels[0, 0, 2]).any():
        return picture
    return gathered(_changed(in_stripes(picture), _with_z))


def normalised(stripes: Stripes) -> Stripes:
    """A normal map with all vectors at unit length; one without a direction points outwards."""
    return _changed(stripes, _of_unit_length)


def _changed(stripes: Stripes, change: Callable[[Vectors], Vectors]) -> Stripes:
    bands = (
        replace(band, pixels=_colours(change(_vectors(band.pixels)), stripes.dtype))
        for band in stripes.cut(_ROWS)
    )
    return stripes.remade(bands)


def _with_z(vectors: Vectors) -> Vectors:
    x, y = vectors[..., 0], vectors[..., 1]
    return np.stack([x, y, np.sqrt((1 - x * x - y * y).clip(0))], axis=2)


def _of_unit_length(vectors: Vectors) -> Vectors:
    length = np.sqrt(np.square(vectors).sum(2, keepdims=True))
    return np.asarray(np.where(length < _SHORTEST, _OUTWARDS, vectors / length.clip(_SHORTEST)))


def _vectors(pixels: Pixels) -> Vectors:
    """Colours → vectors; 0 and the type's largest value are the ends."""
    return np.asarray(pixels.astype(np.float32) * np.float32(2 / _white(pixels.dtype)) - 1)


def _colours(vectors: Vectors, dtype: np.dtype[Any]) -> Any:
    levels: Any = (vectors + 1) * np.float32(_white(dtype) / 2)
    if dtype.kind == "f":
        return levels
    return np.floor(levels.clip(0, _white(dtype)) + np.float32(0.5)).astype(dtype)


def _white(dtype: np.dtype[Any]) -> float:
    return 1.0 if dtype.kind == "f" else float(np.iinfo(dtype).max)
