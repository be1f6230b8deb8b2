"""Upscale arrays tile by tile: windows (`agsr.tiling`) → float32 batches → backend → bands.

If memory runs out, the remaining rows are retried with smaller windows.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agsr.backend import Backend, Batch
from agsr.metrics.luma import FULL_RANGE_WEIGHTS
from agsr.system.progress import ShareCallback
from agsr.tiling import Span, Tile, Window, windows

WHITE = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0, np.dtype(np.float32): 1.0}
"""Value of white by data type."""

_SMALLEST_TILE = 16

Array = NDArray[Any]
"""``(H, W, 3)`` or ``(H, W)`` of a type in `WHITE`."""

_log = logging.getLogger(__name__)


def upscaled_bands(
    backend: Backend,
    arrays: Sequence[Array],
    tile: Tile,
    halo: int,
    progress: ShareCallback | None = None,
) -> Generator[list[Array], None, None]:
    """Upscale arrays of one height and width side by side, from top to bottom.

    Args:
        backend: Runs the network.
        arrays: Arrays to upscale.
        tile: As for `agsr.tiling.windows`.
        halo: LR pixels read around a tile.
        progress: Called after each window with the completed share, 0 to 1.

    Yields:
        The next rows of every upscaled array.

    Raises:
        BackendError: The backend failed.
        MemoryError: Even the smallest tiles do not fit.
    """
    height, width = arrays[0].shape[:2]
    done = 0  # rows of the input whose results have been yielded
    while done < height:
        try:
            for end, bands in _bands(backend, arrays, (tile, halo, done), progress):
                done = end
                yield bands
        except MemoryError:
            smaller = (tile[0] or height) // 2, (tile[1] or width) // 2
            if max(smaller) < _SMALLEST_TILE or backend.info.tiling == "internal":
                raise
        # Outside of the handler, so that the memory of the failed attempt is free.
        if done < height:
            tile = max(smaller[0], _SMALLEST_TILE), max(smaller[1], _SMALLEST_TILE)
            _log.warning("out of memory; trying tiles of %dx%d pixels", tile[1], tile[0])


def _bands(
    backend: Backend,
    arrays: Sequence[Array],
    tiling: tuple[Tile, int, int],
    progress: ShareCallback | None,
) -> Iterator[tuple[int, list[Array]]]:
    """Yield bands below a row of the input, each with the input row at its end."""
    (height, width), scale = arrays[0].shape[:2], backend.info.scale
    cut = windows(height, width, *tiling, align=backend.tile_align, fixed=backend.sizes.fixed)
    plan = [list(row) for _, row in groupby(cut, lambda window: window.rows)]
    order = [(array, window) for row in plan for array in arrays for window in row]
    batches = (_to_batch(_read(array, window)) for array, window in order)
    # Closed in every case: a backend may hold a lock until its outputs are.
    with closing(backend.upscale_many(batches)) as outputs:
        results = _reporting(outputs, len(order), tiling[2] / height, progress)
        for row in plan:
            yield row[0].rows.core_stop, [_joined(array, row, results, scale) for array in arrays]


def _reporting(
    outputs: Iterator[Batch], count: int, before: float, progress: ShareCallback | None
) -> Iterator[Batch]:
    """Yield the outputs; report the completed share when the next one is requested."""
    for number, sr in enumerate(outputs, 1):
        if progress is not None:
            progress(before + (1 - before) * (number / count))
        yield sr


def _joined(array: Array, row: Sequence[Window], results: Iterator[Batch], scale: int) -> Array:
    """Join the cores of a row of windows.

    Planes are stored one after the other, as the network outputs them: the writer interleaves them
    in its thread, while the network runs on.
    """
    parts = (_core(array, window, next(results)[0], scale) for window in row)
    if len(row) == 1:
        return next(parts)
    rows, width = row[0].rows, array.shape[1]
    core_rows = (rows.core_stop - rows.core_start) * scale
    planes = np.empty((*array.shape[2:], core_rows, width * scale), array.dtype)
    band = planes.transpose(1, 2, 0) if planes.ndim == 3 else planes
    for window, part in zip(row, parts, strict=True):
        band[:, _output_slice(window.columns, 0, scale)] = part
    return band


def _core(array: Array, window: Window, sr: NDArray[np.float32], scale: int) -> Array:
    """Crop a window's output ``(3, H, W)`` to its core, in the type and layout of ``array``."""
    rows, columns = window.rows, window.columns
    down = _output_slice(rows, rows.start, scale)
    across = _output_slice(columns, columns.start, scale)
    return _from_planes(sr[:, down, across], array)


def _read(image: Array, window: Window) -> Array:
    rows, columns = window.rows, window.columns
    return image[rows.start : rows.stop, columns.start : columns.stop]


def _output_slice(span: Span, origin: int, scale: int) -> slice:
    """Return a span's core in output pixels, counted from ``origin``."""
    return slice((span.core_start - origin) * scale, (span.core_stop - origin) * scale)


def _to_batch(image: Array) -> Batch:
    """``(H, W[, 3])`` of any supported type → ``(1, 3, H, W)`` float32 in [0, 1]."""
    values = image.astype(np.float32) / np.float32(WHITE[image.dtype])
    if values.ndim == 2:
        return np.repeat(values[None, None], 3, axis=1)
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None])


def _from_planes(planes: NDArray[np.float32], like: Array) -> Array:
    """``(3, H, W)`` float32 → ``(H, W[, 3])`` of the type and layout of ``like``, half-up."""
    if like.ndim == 2:
        values: Array = np.tensordot(FULL_RANGE_WEIGHTS, planes, axes=1)
    else:
        values = planes.transpose(1, 2, 0)
    if like.dtype == np.float32:
        return np.asarray(values)
    largest = np.float32(WHITE[like.dtype])
    levels = np.clip(values, 0, 1) * largest + np.float32(0.5)
    return np.asarray(levels.astype(like.dtype))
