"""A decoded image file: made by `agsr.image.decode`, upscaled, written by `agsr.image.encode`.

A large one goes from the `Upscaler` to the encoder in `Stripes`, and is never in memory as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agsr.image.metadata import Metadata

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
"""``(H, W, 3)`` RGB or ``(H, W)`` grey."""

_ROWS = 64
"""Of what `Stripes.cut` gives, at most."""


@dataclass(frozen=True)
class Picture:
    """Pixels, alpha and what the file said about them."""

    pixels: Pixels
    """RGB ``(H, W, 3)`` or grey ``(H, W)``, uint8 or uint16, upright."""
    alpha: Pixels | None = None
    """Alpha ``(H, W)`` in the same type, if the file has it; colour isn't multiplied by it."""
    metadata: Metadata = field(default_factory=Metadata)
    """ICC profile, EXIF, XMP and resolution."""


@dataclass(frozen=True)
class Stripes:
    """A picture as bands of full rows, from top to bottom, each made when it is asked for."""

    height: int
    width: int
    channels: int
    """Of the pixels: 3 (RGB) or 1 (grey)."""
    opacity: bool
    """Whether there is alpha."""
    dtype: np.dtype[Any]
    metadata: Metadata
    bands: Iterator[Picture]
    """Pixels and alpha of the bands; what they say as metadata doesn't count."""
    separate_alpha: bool = False
    """Alpha is no opacity but data: colour doesn't depend on it, and counts under 0."""
    source: Stripes | None = None
    """What the bands are made of; closed with them."""
    held: int = 0
    """Bytes of a smaller picture that is in memory while the bands are made."""

    @property
    def samples(self) -> int:
        """Values of a pixel, 1 to 4."""
        return self.channels + self.opacity

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return self.height * self.width * self.samples * self.dtype.itemsize

    def mapped(self, change: Callable[[Picture], Picture], **differing: Any) -> Stripes:
        """With every band changed, and fields that differ for that."""
        return self.remade(map(change, self.bands), **differing)

    def remade(self, bands: Iterator[Picture], **differing: Any) -> Stripes:
        """With other bands that are made of these, and fields that differ for that."""
        return replace(self, bands=bands, source=self, **differing)

    def cut(self) -> Iterator[Picture]:
        """Bands of a few rows, for work in floats that takes many times their memory."""
        return (part for band in self.bands for part in in_stripes(band, _ROWS).bands)

    def close(self) -> None:
        """No more bands are wanted: what makes them ends, and gives the network back.

        For whoever may stop before the last band. Otherwise an error's traceback, which keeps
        their makers, would keep the network from everybody else.
        """
        for layer in self._layers():
            close = getattr(layer.bands, "close", None)  # a map or a chain has none
            if close is not None:
                close()

    def _layers(self) -> Iterator[Stripes]:
        """These and what they are made of; the last are the first that were."""
        layer: Stripes | None = self
        while layer is not None:
            yield layer
            layer = layer.source


def in_stripes(picture: Picture, rows: int | None = None) -> Stripes:
    """A picture that is in memory, in bands of so many rows; None for all of them in one."""
    height, width = picture.pixels.shape[:2]
    channels = 3 if picture.pixels.ndim == 3 else 1
    bands = (_cut(picture, top, rows or height) for top in range(0, height, rows or height))
    return Stripes(
        *(height, width, channels, picture.alpha is not None, picture.pixels.dtype),
        *(picture.metadata, bands),
    )


def gathered(stripes: Stripes) -> Picture:
    """The whole picture, in memory."""
    with closing(stripes):
        return _joined(stripes)


def samples_of(picture: Picture) -> NDArray[Any]:
    """``(H, W, C)`` of colour or grey, and alpha."""
    planes = picture.pixels if picture.pixels.ndim == 3 else picture.pixels[..., None]
    if picture.alpha is None:
        return planes
    return np.concatenate([planes, picture.alpha[..., None]], axis=2)


def rounded(values: NDArray[np.float32], dtype: np.dtype[Any]) -> Any:
    """Convert levels to a type: integers are rounded and clipped to its range, floats stay."""
    if dtype.kind == "f":
        return values.astype(dtype, copy=False)
    return np.floor(values.clip(0, np.iinfo(dtype).max) + np.float32(0.5)).astype(dtype)


def _cut(picture: Picture, top: int, rows: int) -> Picture:
    alpha = None if picture.alpha is None else picture.alpha[top : top + rows]
    return Picture(picture.pixels[top : top + rows], alpha)


def _joined(stripes: Stripes) -> Picture:
    whole, top = Picture(np.empty(0, np.uint8)), 0
    for band in stripes.bands:
        rows = len(band.pixels)
        if rows == stripes.height:
            pixels: Any = np.ascontiguousarray(band.pixels)  # OpenCV takes nothing else
            whole = band = replace(band, pixels=pixels)
        elif not top:
            whole = _empty(stripes, band)
        if whole is not band:
            whole.pixels[top : top + rows] = band.pixels
            if whole.alpha is not None and band.alpha is not None:
                whole.alpha[top : top + rows] = band.alpha
        top += rows
    return replace(whole, metadata=stripes.metadata)


def _empty(stripes: Stripes, like: Picture) -> Picture:
    size = (stripes.height, stripes.width)
    alpha = np.empty(size, stripes.dtype) if stripes.opacity else None
    return Picture(np.empty((*size, *like.pixels.shape[2:]), stripes.dtype), alpha)
