"""Measure the halo of a network whose receptive field is unknown.

A tile is compared with the same part of a larger tile, at growing halo, on one seeded picture with
the spectrum of a photograph. Their starts differ by multiples of `agsr.contract.WINDOW`, as those
of such networks' tiles do: many divide a picture into windows, and give another result where their
windows lie otherwise. Results are cached by `agsr.engines.community.measurements`.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from agsr.backend import Backend, Batch
from agsr.contract import CHANNELS, WINDOW
from agsr.engines.community.measurements import Subject, read, write
from agsr.errors import BackendError

BOUND = 0.5
"""Largest accepted difference, levels of 255: it changes hardly a rounded value, and by one."""

CORE = 16
"""Side of the part that is compared, LR pixels."""

CONTEXTS = {4: 20, 8: 56, 16: 64, 32: 80, 64: 112}
"""Halos that are tried, LR pixels, each with the halo of the larger tile to compare with. They
differ by odd multiples of `WINDOW`."""

_KIND = "halos"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MeasuredHalo:
    """Halo of tiles, as measured."""

    halo: int
    """LR pixels read around a tile."""
    difference: float
    """Largest difference from larger tiles at this halo, levels of 255."""

    @property
    def is_exact(self) -> bool:
        """Whether tiles give the result of the whole picture, up to `BOUND`."""
        return self.difference <= BOUND

    def __str__(self) -> str:
        return f"{self.halo} pixels, {self.difference:.2g} levels of 255 from larger tiles"


def find_halo(backend: Backend) -> MeasuredHalo:
    """Return the measured halo of a network: from the cache, or measured now and cached.

    Raises:
        BackendError: The network fails on the tiles, or accepts only ones too small to measure.
        MemoryError: They do not fit into memory.
    """
    subject = Subject.of(backend)
    found = cached_halo(subject)
    if found is None:
        found = measure_halo(backend)
        _log.info("%s: halo measured: %s", backend.info.model, found)
        write(_KIND, subject, asdict(found))
    return found


def cached_halo(subject: Subject) -> MeasuredHalo | None:
    """Return the halo of a network if it was measured before."""
    entry = read(_KIND, subject)
    halo, difference = entry.get("halo"), entry.get("difference")
    if halo not in CONTEXTS or not isinstance(difference, (int, float)) or difference < 0:
        return None
    return MeasuredHalo(halo, float(difference))


def can_measure(backend: Backend) -> bool:
    """Return True if the largest input of a network is large enough to measure a halo."""
    return bool(_contexts(backend))


def measure_halo(backend: Backend) -> MeasuredHalo:
    """Measure the halo of a network, on at most ten tiles.

    Returns:
        The smallest of `CONTEXTS` at which tiles are within `BOUND`; if none is, the one with the
        smallest difference.

    Raises:
        BackendError: As for `find_halo`.
        MemoryError: As for `find_halo`.
    """
    found = []
    for halo, context in _contexts(backend):
        difference = float(np.abs(_core(backend, halo) - _core(backend, context)).max()) * 255
        found.append(MeasuredHalo(halo, round(difference, 4)))
        if found[-1].is_exact:
            return found[-1]
    if not found:
        largest = backend.info.largest or (0, 0)
        raise BackendError(
            f"{backend.info.model} accepts at most {largest[1]}x{largest[0]} pixels, too few to "
            "measure a halo; give it as a number of pixels"
        )
    return min(found, key=lambda measured: measured.difference)


def _contexts(backend: Backend) -> list[tuple[int, int]]:
    """Return the halos to compare that fit into the largest input."""
    if backend.info.largest is None:
        return list(CONTEXTS.items())
    room = (min(backend.info.largest) - CORE) // 2
    pairs = ((halo, _within(context, halo, room)) for halo, context in CONTEXTS.items())
    return [(halo, context) for halo, context in pairs if halo < context]


def _within(context: int, halo: int, room: int) -> int:
    """Return the context, or the largest that fits and differs from the halo by aligned pixels."""
    return min(context, halo + max(0, room - halo) // WINDOW * WINDOW)


def _core(backend: Backend, halo: int) -> Batch:
    """Run a tile of the picture with this halo, and return its core."""
    middle = max(CONTEXTS.values())
    rows = slice(middle - halo, middle + CORE + halo)
    sr = backend.upscale(np.ascontiguousarray(picture()[:, :, rows, rows]))
    scale = backend.info.scale
    inside = slice(halo * scale, (halo + CORE) * scale)
    return np.clip(sr[:, :, inside, inside], 0, 1)


@cache
def picture() -> Batch:
    """Return ``(1, 3, H, W)``: noise with the spectrum of photographs, and edges."""
    side = 2 * max(CONTEXTS.values()) + CORE
    noise = np.random.default_rng(0).standard_normal((CHANNELS, side, side))
    down, across = np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None]
    spectrum = np.fft.fft2(noise) / np.maximum(np.hypot(down, across), 1 / side)
    smooth = np.real(np.fft.ifft2(spectrum))
    smooth = smooth[:1] + 0.4 * smooth  # colours of a photograph vary less than its luma
    values = 0.5 + 0.2 * smooth / smooth.std()
    rows, columns = np.indices((side, side))
    values = values + 0.15 * np.sign(np.sin(rows / 5.5) + np.sin((rows + 2 * columns) / 13))
    clipped: NDArray[np.float32] = np.clip(values, 0, 1).astype(np.float32)
    return clipped[None]
