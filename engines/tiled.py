"""Upscale arrays tile by tile: windows (`agsr.tiling`) → float32 batches → backend → bands.

If memory runs out, the remaining rows are retried with smaller windows.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from agsr.backend import Backend, Batch
from agsr.engines.feather import Feather, Seams
from agsr.engines.planes import Array, planes_like, to_array, to_batch
from agsr.system.progress import ShareCallback
from agsr.tiling import Span, Tile, Window, windows

_SMALLEST_TILE = 16

_log = logging.getLogger(__name__)


def upscaled_bands(
    backend: Backend,
    arrays: Sequence[Array],
    tile: Tile,
    halo: int,
    progress: ShareCallback | None = None,
    seams: Seams | None = None,
) -> Generator[list[Array], None, None]:
    """Upscale arrays of one height and width side by side, from top to bottom.

    Args:
        backend: Runs the network.
        arrays: Arrays to upscale.
        tile: As for `agsr.tiling.windows`.
        halo: LR pixels read around a tile.
        progress: Called after each window with the completed share, 0 to 1.
        seams: If given, overlapping tiles are blended, and their differences noted there; else each
            tile's core is used, which is right for a halo of the receptive radius.

    Yields:
        The next rows of every upscaled array.

    Raises:
        BackendError: The backend failed.
        MemoryError: Even the smallest tiles do not fit.
    """
    height, width = arrays[0].shape[:2]
    done = 0  # rows of the input whose results have been yielded
    scale = backend.info.scale
    joiner = _Cores(arrays, scale) if seams is None else Feather(arrays, scale, seams)
    while done < height:
        try:
            for end, bands in _bands(backend, arrays, (tile, halo, done), joiner, progress):
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
    joiner: _Cores | Feather,
    progress: ShareCallback | None,
) -> Iterator[tuple[int, list[Array]]]:
    """Yield bands below a row of the input, each with the input row at its end."""
    height, width = arrays[0].shape[:2]
    tile, halo, done = tiling
    align, fixed = backend.tile_align, backend.sizes.fixed
    cut = windows(height, width, tile, halo, align=align, fixed=fixed)
    rows = joiner.remaining([list(row) for _, row in groupby(cut, lambda window: window.rows)])
    order = [(array, window) for row in rows for array in arrays for window in row]
    batches = (to_batch(_read(array, window)) for array, window in order)
    # Closed in every case: a backend may hold a lock until its outputs are.
    with closing(backend.upscale_many(batches)) as outputs:
        results = _reporting(outputs, len(order), done / height, progress)
        for row in rows:
            yield joiner.join(row, results)


def _reporting(
    outputs: Iterator[Batch], count: int, before: float, progress: ShareCallback | None
) -> Iterator[Batch]:
    """Yield the outputs; report the completed share when the next one is requested."""
    for number, sr in enumerate(outputs, 1):
        if progress is not None:
            progress(before + (1 - before) * (number / count))
        yield sr


class _Cores:
    """Joins the cores of windows, for networks whose tiles equal the whole picture.

    Args:
        arrays: The input.
        scale: Output pixels per input pixel.
    """

    def __init__(self, arrays: Sequence[Array], scale: int) -> None:
        self._arrays, self._scale = arrays, scale
        self._done = 0

    def remaining(self, rows: Sequence[Sequence[Window]]) -> Sequence[Sequence[Window]]:
        """See `agsr.engines.feather.Feather.remaining`."""
        below = [row for row in rows if row[0].rows.core_stop > self._done]
        first = replace(below[0][0].rows, core_start=max(below[0][0].rows.core_start, self._done))
        return [[replace(window, rows=first) for window in below[0]], *below[1:]]

    def join(self, row: Sequence[Window], outputs: Iterator[Batch]) -> tuple[int, list[Array]]:
        """See `agsr.engines.feather.Feather.join`."""
        bands = [_joined(array, row, outputs, self._scale) for array in self._arrays]
        self._done = row[0].rows.core_stop
        return self._done, bands


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
    return to_array(planes_like(sr[:, down, across], array), array)


def _read(image: Array, window: Window) -> Array:
    rows, columns = window.rows, window.columns
    return image[rows.start : rows.stop, columns.start : columns.stop]


def _output_slice(span: Span, origin: int, scale: int) -> slice:
    """Return a span's core in output pixels, counted from ``origin``."""
    return slice((span.core_start - origin) * scale, (span.core_stop - origin) * scale)
