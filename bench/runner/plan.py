"""The plan of a benchmark: entries, test sets, workloads and the number of rounds.

The command line makes a `BenchPlan`; `agsr.bench.runner.run` carries it out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from agsr.backend import Batch
from agsr.bench.data.sets import ImageSet, TestImage
from agsr.bench.runner.entries import Entry
from agsr.bench.scoring import Distance
from agsr.contract import CHANNELS, SCALE
from agsr.datasets.pairs import Image8

Boundary = Literal["host", "device"]
"""Timed part: from numpy array to numpy array, or without the copies to and from a device."""

Size = tuple[int, int]
"""Height and width, LR pixels."""

Observer = Callable[[str, TestImage, Entry, Image8], None]
"""Called with every scored SR image: the set's name, the image, the entry, the result."""


@dataclass(frozen=True, kw_only=True)
class BenchPlan:
    """The plan of a benchmark."""

    entries: tuple[Entry, ...]
    """Entries to compare."""
    sets: tuple[ImageSet, ...] = ()
    """Sets to score on."""
    sizes: tuple[Size, ...] = ((180, 320),)
    """Input sizes to time."""
    timed_sets: tuple[ImageSet, ...] = ()
    """Sets to time; the images of a set, one after the other, are one workload."""
    batch: int = 1
    """Images per call for the input sizes."""
    boundaries: tuple[Boundary, ...] = ("host",)
    """Timed parts."""
    parity: bool = True
    """Compare pixels with the reference's: `agsr.bench.runner.run.reference_of`."""
    rounds: int = 5
    """Turns of each entry on each workload; 0 skips timing."""
    turn_seconds: float = 0.5
    """Shortest time of a turn in seconds: short calls are repeated."""
    scale: int = SCALE
    """Scale of all networks, and of the sets."""
    distance: Distance | None = None
    """Perceptual distance for LPIPS; None skips it."""
    command: str = ""
    """The command line, for the record."""
    observer: Observer | None = None
    """Called with every scored image."""

    def workloads(self) -> list[Workload]:
        """Return the workloads to time, in order."""
        sets = map(Workload.of_set, self.timed_sets)
        return [
            *(Workload.of_size(size, self.batch, self.scale) for size in self.sizes),
            *(workload for workload in sets if workload.batches),
        ]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Inputs that are upscaled one after the other and timed together.

    >>> workload = Workload.of_size((90, 160), batch=2)
    >>> workload.name, workload.images, workload.output_pixels
    ('2x160x90', 2, 460800)
    """

    name: str
    """``WIDTHxHEIGHT``, ``BATCHxWIDTHxHEIGHT``, or a set's name."""
    batches: tuple[Batch, ...]
    """``(B, 3, H, W)`` each."""
    scale: int = SCALE
    """Scale of the networks that upscale them."""

    @classmethod
    def of_size(cls, size: Size, batch: int = 1, scale: int = SCALE) -> Workload:
        """Make a workload of noise: no network here is faster on some pixels than on others."""
        height, width = size
        noise = np.random.default_rng(0).random((batch, CHANNELS, height, width), np.float32)
        name = f"{width}x{height}"
        name = f"{batch}x{name}" if batch > 1 else name
        return cls(name=name, batches=(noise,), scale=scale)

    @classmethod
    def of_set(cls, images: ImageSet) -> Workload:
        """Make a workload of a set's LR images, without unusable ones."""
        batches = tuple(_batch(image) for image in images.usable())
        return cls(name=images.name, batches=batches, scale=images.scale)

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(len(lr) for lr in self.batches)

    @property
    def output_pixels(self) -> int:
        """Pixels of all results."""
        return sum(int(lr[:, 0].size) for lr in self.batches) * self.scale**2


def _batch(image: TestImage) -> Batch:
    lr = image.lr if image.lr.ndim == 3 else image.lr[..., None].repeat(CHANNELS, axis=2)
    planes = np.ascontiguousarray(lr.transpose(2, 0, 1)[None], np.float32)
    return np.asarray(planes / np.float32(255))
