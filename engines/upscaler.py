"""`Upscaler`: an image in, an image four times as large out; tiles, types, grey and alpha included.

Data flow: array → windows (`agsr.tiling`) → float32 batches → backend → kept part → output array.
Where memory runs out, smaller windows are tried.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from types import TracebackType
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agsr.alpha import bounded
from agsr.arrays import upscaled_array
from agsr.backend import Backend, BackendInfo, Batch
from agsr.catalog import DEFAULT_WEIGHTS
from agsr.contract import SCALE
from agsr.engines.select import open_backend
from agsr.errors import BackendError
from agsr.metrics import GREY_WEIGHTS
from agsr.picture import Picture
from agsr.pillow import upscaled_pillow
from agsr.sizing import Sizing, shrunk
from agsr.tiling import DEFAULT_HALO, Span, Window, auto_tile, windows

_LARGEST = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0, np.dtype(np.float32): 1.0}

_SMALLEST_TILE = 16

Array = NDArray[Any]
Progress = Callable[[float], None]

_log = logging.getLogger(__name__)


class Upscaler:
    """Upscales images by four.

    >>> from agsr import Upscaler
    >>> with Upscaler("psnr", steps=4) as upscaler:  # doctest: +SKIP
    ...     large = upscaler(image)

    One may be used from several threads; they take turns at the network, image by image.

    Args:
        weights: A shipped name, or the path of an ``.onnx`` or ``.safetensors`` file.
        backend: ``"auto"``, ``"ort"``, ``"torch"``, or a loaded `Backend`, which is not closed.
        steps: Time steps of the recurrent attention loop; None means those of the file, or 4.
        tile: Side of a tile in LR pixels; 0 for none, ``"auto"`` to cut large images only.
        halo: LR pixels read around a tile; ``"exact"`` for the network's receptive radius, which
            makes the result that of the whole image.
        options: Further arguments of `agsr.engines.select.open_backend`.

    Raises:
        AgsrError: The network can't be loaded; the message says what to do.
    """

    def __init__(
        self,
        weights: str = DEFAULT_WEIGHTS,
        *,
        backend: str | Backend = "auto",
        steps: int | None = None,
        tile: int | str = "auto",
        halo: int | str = DEFAULT_HALO,
        **options: Any,
    ) -> None:
        self._tile = _size("tile", tile, "auto")
        self._halo = _size("halo", halo, "exact")
        self._turn = threading.Lock()
        self._owned = isinstance(backend, str)
        self._backend = (
            open_backend(backend, weights, steps=steps, **options)
            if isinstance(backend, str)
            else backend
        )

    @property
    def info(self) -> BackendInfo:
        """What really runs."""
        return self._backend.info

    @overload
    def __call__(self, image: Array, progress: Progress | None = None) -> Array: ...

    @overload
    def __call__(self, image: Image.Image, progress: Progress | None = None) -> Image.Image: ...

    def __call__(
        self, image: Array | Image.Image, progress: Progress | None = None
    ) -> Array | Image.Image:
        """Upscale an array or a Pillow image.

        Args:
            image: ``(H, W, 3)`` RGB, ``(H, W, 4)`` RGBA, ``(H, W)`` or ``(H, W, 1)`` grey, or
                ``(H, W, 2)`` grey with alpha, not multiplied by it; uint8, uint16, or floats in
                [0, 1], which are computed in float32. Or a Pillow image of any mode of 8 bits per
                channel, or I;16.
            progress: Called after each tile with the share that is done, 0 to 1.

        Returns:
            ``(4H, 4W[, C])`` of the same type; floats are not clipped. Of a Pillow image another of
            mode L, LA, RGB, RGBA or I;16, turned upright as its EXIF asks for, with its profile,
            EXIF, XMP and resolution.

        Raises:
            ImageError: The array has another shape or type, floats far outside of [0, 1] or NaN, or
                the image has another mode.
            BackendError: The backend failed.
            MemoryError: Even the smallest tiles do not fit.
        """
        if isinstance(image, Image.Image):
            return upscaled_pillow(image, lambda picture: self.picture(picture, progress))
        return upscaled_array(image, lambda picture: self.picture(picture, progress))

    def _array(self, image: Array, progress: Progress | None = None) -> Array:
        height, width = image.shape[:2]
        result = np.empty((height * SCALE, width * SCALE, *image.shape[2:]), image.dtype)
        with self._turn:
            self._fill(result, image, *self._tiling(height, width), progress)
        return result

    def picture(
        self, picture: Picture, progress: Progress | None = None, sizing: Sizing | None = None
    ) -> Picture:
        """Upscale a decoded file: its pixels, and its alpha unless that is constant.

        Args:
            picture: Pixels, alpha and metadata; the latter stays.
            progress: As for arrays.
            sizing: Size of the result, where it is not four times that of the picture. What needs
                no enlarging is only shrunk.

        Raises:
            ImageError, BackendError, MemoryError: As for arrays.
        """
        height, width = picture.pixels.shape[:2]
        target = (sizing or Sizing()).result(height, width)
        if target[0] > height or target[1] > width:
            picture = self._enlarged(picture, progress)
        return shrunk(picture, *target)

    def close(self) -> None:
        """Release the backend, if it was opened here."""
        if self._owned:
            self._backend.close()

    def __enter__(self) -> Upscaler:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _enlarged(self, picture: Picture, progress: Progress | None) -> Picture:
        alpha = picture.alpha
        pixels = self._array(_without_hidden_colour(picture.pixels, alpha), progress)
        if alpha is not None and (alpha == alpha.flat[0]).all():
            alpha = np.full(pixels.shape[:2], alpha.flat[0], alpha.dtype)
        elif alpha is not None:
            alpha = bounded(self._array(alpha), alpha)
        return replace(picture, pixels=pixels, alpha=alpha)

    def _fill(
        self, result: Array, image: Array, tile: int, halo: int, progress: Progress | None
    ) -> None:
        """Upscale an image into a result, by smaller tiles if memory runs out."""
        height, width = image.shape[:2]
        while not self._fits(result, image, tile, halo, progress):
            # Nothing is handled any more, so what the failed attempt held is free again.
            tile = (tile or max(height, width)) // 2
            _log.warning("out of memory; trying tiles of %d pixels a side", tile)

    def _fits(
        self, result: Array, image: Array, tile: int, halo: int, progress: Progress | None
    ) -> bool:
        """Upscale an image into a result, unless memory runs out where smaller tiles may do."""
        height, width = image.shape[:2]
        try:
            self._fill_windows(result, image, list(windows(height, width, tile, halo)), progress)
        except MemoryError:
            if (tile or max(height, width)) // 2 < _SMALLEST_TILE:
                raise
            return False
        return True

    def _fill_windows(
        self, result: Array, image: Array, plan: list[Window], progress: Progress | None
    ) -> None:
        batches = (_to_batch(_read(image, window)) for window in plan)
        # Closed whatever happens: a backend may hold a lock until its outputs are.
        with closing(self._backend.upscale_many(batches)) as outputs:
            for done, (window, sr) in enumerate(zip(plan, outputs, strict=True), 1):
                rows, columns = window.rows, window.columns
                kept = sr[0][:, _enlarged(rows, rows.start), _enlarged(columns, columns.start)]
                result[_enlarged(rows, 0), _enlarged(columns, 0)] = _from_planes(kept, image)
                if progress is not None:
                    progress(done / len(plan))

    def _tiling(self, height: int, width: int) -> tuple[int, int]:
        """Tile and halo for an image, within what the backend can take."""
        tile = auto_tile(height, width) if isinstance(self._tile, str) else self._tile
        halo = self.info.receptive_radius if isinstance(self._halo, str) else self._halo
        if halo is None:
            raise BackendError(
                f"{self.info.model} doesn't tell its receptive radius, which halo 'exact' needs; "
                "give the halo as a number of pixels"
            )
        if self.info.largest is None:
            return tile, halo
        side = min(self.info.largest)
        if not tile and height <= self.info.largest[0] and width <= self.info.largest[1]:
            return tile, halo
        if side <= 2 * halo:
            build = ", or build its engine with a larger --max" if self.info.name == "trt" else ""
            raise BackendError(
                f"{self.info.device} takes {side} pixels a side, too few for a halo of {halo} on "
                f"both sides; use a smaller --halo{build}"
            )
        return min(tile or side, side - 2 * halo), halo


def _read(image: Array, window: Window) -> Array:
    rows, columns = window.rows, window.columns
    return image[rows.start : rows.stop, columns.start : columns.stop]


def _without_hidden_colour(pixels: Array, alpha: Array | None) -> Array:
    """Give fully transparent pixels the colour of the nearest visible one.

    What lies under them is arbitrary, often black, and would bleed into the visible edge. OpenCV
    counts distances in 16 bits: farther than some 65 000 pixels from any visible one, the colour
    may be another, which is far from every edge.
    """
    if alpha is None or alpha.all() or not alpha.any():
        return pixels
    import cv2  # slow to load, and needed here only

    hidden = (alpha == 0).astype(np.uint8)
    _, nearest = cv2.distanceTransformWithLabels(
        hidden, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    # Labels number the visible pixels from 1; look up where each label's pixel lies.
    where = np.zeros(int(nearest.max()) + 1, np.int64)
    where[nearest[hidden == 0]] = np.flatnonzero(hidden == 0)
    return np.asarray(pixels.reshape(-1, *pixels.shape[2:])[where[nearest]])


def _enlarged(span: Span, origin: int) -> slice:
    """The kept part of a span in output pixels, counted from ``origin``."""
    return slice((span.keep_start - origin) * SCALE, (span.keep_stop - origin) * SCALE)


def _to_batch(image: Array) -> Batch:
    """``(H, W[, 3])`` of any supported type → ``(1, 3, H, W)`` float32 in [0, 1]."""
    values = image.astype(np.float32) / np.float32(_LARGEST[image.dtype])
    if values.ndim == 2:
        return np.repeat(values[None, None], 3, axis=1)
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None])


def _from_planes(planes: NDArray[np.float32], like: Array) -> Array:
    """``(3, H, W)`` float32 → ``(H, W[, 3])`` in the type and kind of ``like``, rounded half-up."""
    if like.ndim == 2:
        values: Array = np.tensordot(GREY_WEIGHTS, planes, axes=1)
    else:
        values = planes.transpose(1, 2, 0)
    if like.dtype == np.float32:
        return np.asarray(values)
    largest = np.float32(_LARGEST[like.dtype])
    levels = np.clip(values, 0, 1) * largest + np.float32(0.5)
    return np.asarray(levels.astype(like.dtype))


def _size(name: str, value: int | str, word: str) -> int | str:
    if value != word and (isinstance(value, str) or value < 0):
        raise ValueError(f"{name} is {value!r}; expected '{word}' or a number from 0")
    return value
