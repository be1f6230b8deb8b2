"""Judge a network's result on one tile of a test picture: in reduced precision by that in fp32.

Overflow in fp16 gives NaN or black pictures, and some networks lose more than rounding: found
before the first picture, not in the results. Exchanged colours are found by their mean.
"""

from __future__ import annotations

import numpy as np

from agsr.backend import Batch
from agsr.contract import SizeRule
from agsr.engines.community.halo import picture

SIDE = 48
"""Side of the tile, LR pixels."""

MEAN = 2.0
"""Largest accepted mean difference, levels of 255."""

PEAK = 16.0
"""Largest accepted difference of all but one value of a thousand, levels of 255."""

ORDER = ("fp16", "bf16", "fp32")
"""Precisions in the order in which they are tried: bf16 rounds more, but does not overflow."""


def probe_tile(sizes: SizeRule) -> Batch:
    """Return a tile of an accepted size, ``(1, 3, H, W)``."""
    height, width = sizes.padded(SIDE, SIDE)
    whole = picture()
    added = (max(0, height - whole.shape[2]), max(0, width - whole.shape[3]))
    whole = np.pad(whole, ((0, 0), (0, 0), (0, added[0]), (0, added[1])), mode="reflect")
    return np.ascontiguousarray(whole[:, :, :height, :width])


def tinted(tile: Batch) -> Batch:
    """Return a tile whose colours have different means."""
    tints = np.array([1.0, 0.75, 0.5], np.float32)
    return np.asarray(tile * tints.reshape(1, -1, 1, 1))


def are_exchanged(found: Batch, tile: Batch) -> bool:
    """Return True if red and blue of a result are those of blue and red of a tinted tile.

    >>> tile = tinted(np.full((1, 3, 2, 2), 0.5, np.float32))
    >>> are_exchanged(tile[:, ::-1], tile), are_exchanged(tile, tile)
    (True, False)
    """
    means, given = found.mean(axis=(0, 2, 3)), tile.mean(axis=(0, 2, 3))
    as_it_is, turned = (float(np.abs(means - other).max()) for other in (given, given[::-1]))
    return turned < as_it_is / 2


def fault(found: Batch, expected: Batch | None) -> str:
    """Describe what is wrong with a result in reduced precision; empty if nothing is.

    Args:
        found: Result in reduced precision.
        expected: Result in fp32; None if there is none to compare with.
    """
    if not np.isfinite(found).all():
        sound = expected is None or np.isfinite(expected).all()
        return "gives NaN or infinity" if sound else ""
    found = np.clip(found, 0, 1)
    if expected is None:
        return "gives a black picture" if found.max() < 1 / 255 else ""
    expected = np.clip(expected, 0, 1)
    if found.max() < 1 / 255 < expected.mean():
        return "gives a black picture"
    difference = np.abs(found - expected) * 255
    mean, peak = float(difference.mean()), float(np.percentile(difference, 99.9))
    if mean > MEAN or peak > PEAK:
        return f"differs from fp32 by {mean:.1f} levels of 255, up to {peak:.0f}"
    return ""


def next_precision(precision: str, supported: tuple[str, ...]) -> str:
    """Return the next precision to try that a network supports."""
    later = ORDER[ORDER.index(precision) + 1 :]
    return next(known for known in later if known in supported)
