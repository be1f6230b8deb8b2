"""Measure how much main memory a network needs per pixel of a tile, on a tile that it runs.

The memory of the process is sampled while the network runs, so the runtime's scratch memory counts,
whatever the runtime. So does what other threads allocate meanwhile: only what was measured before
they start is cached, like the results of `agsr.engines.community.halo`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import numpy as np

from agsr.backend import Backend, Batch
from agsr.contract import CHANNELS
from agsr.engines.community.measurements import Subject, place_of, read, write
from agsr.errors import BackendError

SIDE = 96
"""Side of the tile, LR pixels."""

WORTHWHILE = 8 * SIDE**2
"""Pixels of a picture from which the tile is worth its time."""

_SMALL = (16, 32)
"""Sides of a tile that runs before, so that what a runtime allocates once doesn't count; the second
if the first is too small for the network."""

_SECONDS = 0.2
"""Time for which a fast network is repeated, so that enough samples are taken."""

_PERIOD = 0.001
"""Seconds between samples."""

_MARGIN = 1.1
"""Factor for peaks between samples."""

_KIND = "memory"

_log = logging.getLogger(__name__)


def find_bytes_per_pixel(backend: Backend, at_least: int = 0, *, alone: bool) -> int:
    """Return the bytes of main memory per LR pixel of a tile: from the cache, or measured now.

    Args:
        backend: Runs the network on a CPU.
        at_least: A smaller result is replaced by this, and not cached: for a network that has run
            before, whose runtime may hold memory that it reuses.
        alone: Whether nothing else runs in this process. Otherwise the result is not cached, since
            other threads' memory may be part of it.

    Raises:
        BackendError: The network fails on the tile.
        MemoryError: The tile does not fit into memory.
    """
    subject = Subject.of(backend, place_of(backend.info))
    cached = read(_KIND, subject).get("bytes_per_pixel")
    if isinstance(cached, int) and cached > 0:
        return cached
    found = measure_bytes_per_pixel(backend)
    if found <= at_least:
        return at_least
    _log.info("%s: %d bytes per pixel measured", backend.info.model, found)
    if alone:
        write(_KIND, subject, {"bytes_per_pixel": found})
    return found


def measure_bytes_per_pixel(backend: Backend) -> int:
    """Measure the bytes of main memory per LR pixel of a tile; see `find_bytes_per_pixel`."""
    side = SIDE if backend.info.largest is None else min(SIDE, *backend.info.largest)
    _warm_up(backend, side)
    tile = _tile(side)
    computed = np.prod(backend.sizes.padded(side, side))
    used = _peak(lambda: backend.upscale(tile)) * _MARGIN
    floor = 4 * CHANNELS * (1 + 2 * backend.info.scale**2)  # the input, the result and its copy
    return max(floor, int(used / computed))


def _warm_up(backend: Backend, most: int) -> None:
    """Run a small tile; a network that accepts none is measured without, at more memory."""
    for side in _SMALL:
        with suppress(BackendError):  # a minimum that a foreign file doesn't declare
            backend.upscale(_tile(min(side, most)))
            return


def _tile(side: int) -> Batch:
    return np.full((1, CHANNELS, side, side), 0.5, np.float32)


def _peak(call: Callable[[], object]) -> int:
    """Return the bytes by which this process grows while a function runs, at most."""
    import psutil  # slow to import

    process = psutil.Process()
    before = int(process.memory_info().rss)
    most, done = before, threading.Event()

    def sample() -> None:
        nonlocal most
        while not done.wait(_PERIOD):
            most = max(most, int(process.memory_info().rss))

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    until = time.monotonic() + _SECONDS
    try:
        call()
        while time.monotonic() < until:
            call()
    finally:
        done.set()
        sampler.join()
    return max(most, int(process.memory_info().rss)) - before
