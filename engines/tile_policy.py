"""Choose tiles for an image: as requested, or the best that fit into the free memory."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from agsr.backend import Backend
from agsr.engines.community.tile_memory import WORTHWHILE, find_bytes_per_pixel
from agsr.engines.feather import Seams
from agsr.engines.halo_choice import HaloChoice
from agsr.engines.planes import Array
from agsr.errors import BackendError
from agsr.system.memory import free_memory
from agsr.tiling import MemoryBudget, Tile, Window, auto_tile, largest_tile, windows

BANDS_HELD = 4
"""Bands of a result in memory: one is computed, one waits, one is written, partly in a copy."""

_SHARE = 0.75
"""Share of the free memory that tiles may use."""

_MOST_OVERLAP = 2.0
"""Computations per pixel above which blended tiles overlap less."""

_WASTEFUL = 4.0
"""Computations per pixel above which a warning is logged for tiles chosen by the user."""

_log = logging.getLogger(__name__)


class TilePolicy:
    """Chooses tile and halo by an image's size.

    Args:
        backend: Runs the network.
        tile: Side of a tile in LR pixels, 0 for none, or ``"auto"``.
        halo: LR pixels read around a tile, ``"exact"`` or ``"auto"``; see `Upscaler`.
    """

    def __init__(self, backend: Backend, tile: int | str, halo: int | str) -> None:
        self._backend, self._tile = backend, tile
        self._halo = HaloChoice(backend, halo)
        self._free_at_first: int | None = None
        self._measured_bytes: int | None = None  # per pixel
        self.has_cut = False
        """Whether any image was cut into tiles."""
        self.seams = Seams()
        """Differences of the tiles that were blended."""
        self._has_warned = False
        self._allocated = 0  # bytes of the largest window so far; the runtime may still hold them

    @property
    def requested(self) -> tuple[int | str, int | str]:
        """Tile and halo as requested."""
        return self._tile, self._halo.requested

    @property
    def margin(self) -> int:
        """LR pixels of padding beyond the image: the halo, at most the receptive radius."""
        radius = self._backend.info.receptive_radius
        halo = self._halo.uncut
        return halo if radius is None else min(halo, radius)

    def tiling_for(self, arrays: Sequence[Array]) -> tuple[Tile, int]:
        """Choose tile and halo for arrays of one size that are upscaled side by side.

        Raises:
            BackendError: The halo is unknown, or too large for the backend, or the network can't be
                cut and the arrays are too large for it.
        """
        size = arrays[0].shape[:2]
        if math.prod(size) >= WORTHWHILE and self._is_measurable:
            self._measured_bytes = self._found_bytes(alone=False)
        halo = self._halo.uncut
        tile = self._tile_for(arrays, halo)
        if _cuts(self._first_window(size, tile, halo), size):
            halo = self._halo.cut
            tile = self._tile_for(arrays, halo)
            if self.blends(halo):
                tile, halo = self._feathered(arrays)
        window = self._first_window(size, tile, halo)
        self._note_cut(window, size, tile, halo)
        pixels = math.prod(self._backend.sizes.padded(window.rows.stop, window.columns.stop))
        self._allocated = max(self._allocated, pixels * self._bytes_per_pixel)
        return tile, halo

    def measure_memory(self) -> None:
        """Measure the memory of another project's network, before anything else runs."""
        if self._is_measurable:
            self._measured_bytes = self._found_bytes(alone=True)

    @property
    def _bytes_per_pixel(self) -> int:
        return self._measured_bytes or self._backend.bytes_per_pixel

    @property
    def _is_measurable(self) -> bool:
        """Whether tiles depend on the main memory of a network that wasn't measured yet."""
        info = self._backend.info
        on_cpu = info.device.lower().startswith("cpu") and self._backend.free_memory() is None
        is_known = info.receptive_radius is not None or self._measured_bytes is not None
        is_cut = info.tiling != "internal" and self._backend.sizes.fixed is None
        return self._tile == "auto" and is_cut and on_cpu and not is_known

    def _found_bytes(self, *, alone: bool) -> int:
        """Return the measured bytes per pixel, or the backend's if the network fails on a tile."""
        usual = self._backend.bytes_per_pixel
        at_least = usual if self._allocated else 0
        try:
            return find_bytes_per_pixel(self._backend, at_least, alone=alone)
        except (BackendError, MemoryError) as error:  # the picture may still work
            _log.info("%s: memory not measured: %s", self._backend.info.model, error)
            return usual

    def blends(self, halo: int) -> bool:
        """Return True if overlapping tiles are to be blended, since no halo makes them exact."""
        return halo > 0 and not self._halo.is_exact

    def note_seams(self, seams: Seams) -> None:
        """Note how much the tiles of an image differed, if it was cut."""
        if seams.difference:
            self.seams.include(seams)
            self._halo.log_seams(seams)

    def _feathered(self, arrays: Sequence[Array]) -> tuple[Tile, int]:
        """Return tile and halo of blended tiles: the widest overlap that isn't wasteful."""
        size = arrays[0].shape[:2]
        for halo in self._halo.feathered:
            tile = self._tile_for(arrays, halo)
            sides = [(a or b, 2 * halo if a else 0) for a, b in zip(tile, size, strict=True)]
            if math.prod((side + more) / side for side, more in sides) <= _MOST_OVERLAP:
                break
        return tile, halo

    def _tile_for(self, arrays: Sequence[Array], halo: int) -> Tile:
        """Return the tile for this halo: as requested, or by the free memory."""
        height, width = arrays[0].shape[:2]
        if self._backend.info.tiling == "internal":
            return self._whole(height, width)
        if isinstance(self._tile, int):
            tile = self._tile, self._tile
        elif self._backend.sizes.fixed is not None:
            tile = 0, 0  # a smaller tile would be computed at the same size
        else:
            tile = self._auto_tile(arrays, halo)
        return self._within_backend(height, width, tile, halo)

    def _auto_tile(self, arrays: Sequence[Array], halo: int) -> Tile:
        height, width = arrays[0].shape[:2]
        backend, padded = self._backend, self._backend.sizes.padded
        area = backend.tile_area if self._halo.is_exact else math.prod(padded(height, width))
        budget = self._budget(arrays, halo)
        return auto_tile(height, width, budget, halo, area, backend.tile_align, padded)

    def _whole(self, height: int, width: int) -> Tile:
        """Return the tile of a network that can't be cut."""
        info = self._backend.info
        if self._tile not in ("auto", 0) and not self._has_warned:
            self._has_warned = True
            _log.warning("%s looks at whole pictures and is never cut; no tiles", info.model)
        if info.largest is not None and (height > info.largest[0] or width > info.largest[1]):
            raise BackendError(
                f"{info.model} looks at whole pictures, so it can't be cut, and accepts at most "
                f"{info.largest[1]}x{info.largest[0]} pixels, got {width}x{height}"
            )
        return 0, 0

    def _first_window(self, size: tuple[int, ...], tile: Tile, halo: int) -> Window:
        (height, width), backend = size, self._backend
        align, fixed = backend.tile_align, backend.sizes.fixed
        return next(windows(height, width, tile, halo, align=align, fixed=fixed))

    def _note_cut(self, window: Window, size: tuple[int, ...], tile: Tile, halo: int) -> None:
        """Note whether an image is cut; warn once if tiles are mostly halo, or inexact."""
        if not _cuts(window, size):
            return
        self.has_cut = True
        self._halo.warn_if_inexact(self.blends(halo))
        rows, columns = (min(a or b, b) for a, b in zip(tile, size, strict=True))
        times = window.rows.stop * window.columns.stop / (rows * columns)
        if times > _WASTEFUL and not isinstance(self._tile, str) and not self._has_warned:
            self._has_warned = True
            _log.warning(
                "tiles of %dx%d pixels with a halo of %d compute each pixel %.0f times; "
                "tiles of %d compute it %.1f times",
                *(columns, rows, halo, times, 8 * halo, (10 / 8) ** 2),
            )

    def _budget(self, arrays: Sequence[Array], halo: int) -> MemoryBudget:
        """Return the memory for tiles: a share of what is free, at most of what was free at first.

        A runtime does not return the memory it once allocated, but reuses it.
        """
        device = self._backend.free_memory()
        free = free_memory() if device is None else device
        if self._free_at_first is None:
            self._free_at_first = free
        free = min(free + self._allocated, self._free_at_first)
        # Each row becomes as many rows as the scale, that many times as long, in main memory.
        large = self._backend.info.scale**2
        row = large * sum(array[0].nbytes for array in arrays) * BANDS_HELD
        usable = int(free * _SHARE)
        if device is not None:
            return MemoryBudget(usable, self._bytes_per_pixel, 0)
        if self.blends(halo):  # overlaps with the tiles above and below wait as float32
            overlap = 2 * (halo + self._backend.tile_align)
            usable -= 2 * overlap * large * sum(array[0].size * 4 for array in arrays)
        return MemoryBudget(usable, self._bytes_per_pixel, row)

    def _within_backend(self, height: int, width: int, tile: Tile, halo: int) -> Tile:
        """Return the tile, or a smaller one if its windows are too large for the backend."""
        info = self._backend.info
        if info.largest is None:
            return tile
        axes = zip((height, width), info.largest, tile, strict=True)
        align = self._backend.tile_align
        rows, columns = (_side(*axis, halo, align) for axis in axes)
        if rows is not None and columns is not None:
            return rows, columns
        build = ", or build its engine with a larger --max" if info.name == "trt" else ""
        starts = f", in tiles that start at multiples of {align}" if align > 1 else ""
        raise BackendError(
            f"{info.model} accepts at most {info.largest[1]}x{info.largest[0]} pixels, too few "
            f"for a halo of {halo} on both sides{starts}; use a smaller --halo{build}"
        )


def _cuts(window: Window, size: tuple[int, ...]) -> bool:
    """Return True if a window is not the whole image."""
    return (window.rows.core_stop, window.columns.core_stop) != size


def _side(length: int, largest: int, tile: int, halo: int, align: int) -> int | None:
    """Return the tile along one axis, 0 for all of it; None if no window fits in ``largest``."""
    most = largest_tile(largest, halo, align)
    if length <= largest and (not tile or most <= 0):
        return 0
    return min(tile or most, most) if most > 0 else None
