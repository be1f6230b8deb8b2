"""A decoded image: produced by `agsr.image.decode`, upscaled, written by `agsr.image.encode`.

Results pass from the `Upscaler` to the encoder as `RowBands`, so a large one is never completely in
memory.
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
"""Maximum height of the bands from `RowBands.iter_bands`."""


@dataclass(frozen=True)
class Picture:
    """Pixels, alpha and metadata of an image.

    >>> import numpy as np
    >>> Picture(np.zeros((2, 3, 3), np.uint8)).pixels.shape
    (2, 3, 3)
    """

    pixels: Pixels
    """RGB ``(H, W, 3)`` or grey ``(H, W)``, uint8 or uint16, upright."""
    alpha: Pixels | None = None
    """Alpha ``(H, W)`` in the same type, or None; colour is not premultiplied."""
    metadata: Metadata = field(default_factory=Metadata)
    """ICC profile, EXIF, XMP and resolution."""


@dataclass(frozen=True)
class RowBands:
    """A picture as bands of full rows, from top to bottom, each computed on demand.

    >>> import numpy as np
    >>> bands = as_row_bands(Picture(np.zeros((5, 2), np.uint8)), rows=2)
    >>> [len(band.pixels) for band in bands.bands]
    [2, 2, 1]
    """

    height: int
    width: int
    channels: int
    """Colour channels: 3 (RGB) or 1 (grey)."""
    opacity: bool
    """Whether there is alpha."""
    dtype: np.dtype[Any]
    metadata: Metadata
    bands: Iterator[Picture]
    """Pixels and alpha of each band; the bands' own metadata is ignored."""
    separate_alpha: bool = False
    """Alpha is data, not opacity: colour is independent of it and matters where alpha is 0."""
    source: RowBands | None = None
    """The bands these are computed from; closed with them."""
    held: int = 0
    """Bytes of a smaller picture that stays in memory while the bands are computed."""

    @property
    def samples(self) -> int:
        """Samples per pixel, 1 to 4."""
        return self.channels + self.opacity

    @property
    def nbytes(self) -> int:
        """Bytes of all samples."""
        return self.height * self.width * self.samples * self.dtype.itemsize

    def mapped(self, change: Callable[[Picture], Picture], **differing: Any) -> RowBands:
        """Return row bands with ``change`` applied to each, and the given fields replaced."""
        return self.with_bands(map(change, self.bands), **differing)

    def with_bands(self, bands: Iterator[Picture], **differing: Any) -> RowBands:
        """Return row bands derived from these, with the given fields replaced."""
        return replace(self, bands=bands, source=self, **differing)

    def iter_bands(self) -> Iterator[Picture]:
        """Iterate over bands of at most 64 rows, for float work with a large memory factor."""
        return (part for band in self.bands for part in as_row_bands(band, _ROWS).bands)

    def close(self) -> None:
        """Stop the generators that compute the bands, and release the network.

        Required of any consumer that may stop before the last band. Otherwise an error's traceback,
        which references the generators, would keep the network busy.
        """
        for layer in self._layers():
            close = getattr(layer.bands, "close", None)  # map and chain have no close()
            if close is not None:
                close()

    def _layers(self) -> Iterator[RowBands]:
        """Yield these bands, then those they are computed from, down to the first."""
        layer: RowBands | None = self
        while layer is not None:
            yield layer
            layer = layer.source


def as_row_bands(picture: Picture, rows: int | None = None) -> RowBands:
    """Split a picture in memory into bands of ``rows`` rows; None returns one band."""
    height, width = picture.pixels.shape[:2]
    channels = 3 if picture.pixels.ndim == 3 else 1
    bands = (_cut(picture, top, rows or height) for top in range(0, height, rows or height))
    return RowBands(
        *(height, width, channels, picture.alpha is not None, picture.pixels.dtype),
        *(picture.metadata, bands),
    )


def materialize(row_bands: RowBands) -> Picture:
    """Compute all bands and return the whole picture."""
    with closing(row_bands):
        return _joined(row_bands)


def samples_of(picture: Picture) -> NDArray[Any]:
    """Return colour or grey, and alpha if any, as ``(H, W, C)``."""
    planes = picture.pixels if picture.pixels.ndim == 3 else picture.pixels[..., None]
    if picture.alpha is None:
        return planes
    return np.concatenate([planes, picture.alpha[..., None]], axis=2)


def rounded(values: NDArray[np.float32], dtype: np.dtype[Any]) -> Any:
    """Convert levels to ``dtype``; integers are rounded and clipped, floats unchanged.

    >>> rounded(np.array([-1, 0.5, 300], np.float32), np.dtype(np.uint8)).tolist()
    [0, 1, 255]
    """
    if dtype.kind == "f":
        return values.astype(dtype, copy=False)
    return np.floor(values.clip(0, np.iinfo(dtype).max) + np.float32(0.5)).astype(dtype)


def _cut(picture: Picture, top: int, rows: int) -> Picture:
    alpha = None if picture.alpha is None else picture.alpha[top : top + rows]
    return Picture(picture.pixels[top : top + rows], alpha)


def _joined(row_bands: RowBands) -> Picture:
    whole, top = Picture(np.empty(0, np.uint8)), 0
    for band in row_bands.bands:
        rows = len(band.pixels)
        if rows == row_bands.height:
            pixels: Any = np.ascontiguousarray(band.pixels)  # OpenCV requires it
            whole = band = replace(band, pixels=pixels)
        elif not top:
            whole = _empty(row_bands, band)
        if whole is not band:
            whole.pixels[top : top + rows] = band.pixels
            if whole.alpha is not None and band.alpha is not None:
                whole.alpha[top : top + rows] = band.alpha
        top += rows
    return replace(whole, metadata=row_bands.metadata)


def _empty(row_bands: RowBands, like: Picture) -> Picture:
    size = (row_bands.height, row_bands.width)
    alpha = np.empty(size, row_bands.dtype) if row_bands.opacity else None
    return Picture(np.empty((*size, *like.pixels.shape[2:]), row_bands.dtype), alpha)
