"""What a benchmark will do: contenders, sets, workloads and how often."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from agsr.backend import Batch
from agsr.bench.data.sets import ImageSet, TestImage
from agsr.bench.runner.entries import Contender
from agsr.bench.scoring import Distance
from agsr.contract import CHANNELS, SCALE
from agsr.datasets.pairs import Image8

Boundary = Literal["host", "device"]
"""What is timed: from numpy array to numpy array, or without the copies to and from a device."""

Size = tuple[int, int]
"""Height and width, LR pixels."""

Observer = Callable[[str, TestImage, Contender, Image8], None]
"""Shown every SR image that is scored: the set's name, its image, what upscaled it, the result."""


@dataclass(frozen=True, kw_only=True)
class BenchPlan:
    """What a benchmark will do."""

    contenders: tuple[Contender, ...]
    """What is compared."""
    sets: tuple[ImageSet, ...] = ()
    """Sets to score on."""
    sizes: tuple[Size, ...] = ((180, 320),)
    """Input sizes to time."""
    timed_sets: tuple[ImageSet, ...] = ()
    """Sets whose images are timed, one after the other, as one workload."""
    batch: int = 1
    """Images per call of the input sizes."""
    boundaries: tuple[Boundary, ...] = ("host",)
    """What is timed."""
    parity: bool = True
    """Whether pixels are compared with the reference's: `agsr.bench.runner.run.reference_of`."""
    rounds: int = 5
    """Turns of each contender on each workload; 0 leaves speed out."""
    turn_seconds: float = 0.5
    """Time a turn should take at least: short calls are repeated in it."""
    distance: Distance | None = None
    """Perceptual distance, for LPIPS."""
    command: str = ""
    """What the user typed, for the record."""
    observer: Observer | None = None
    """Shown the results."""

    def workloads(self) -> list[Workload]:
        """What is timed, in order."""
        sets = map(Workload.of_set, self.timed_sets)
        return [
            *(Workload.of_size(size, self.batch) for size in self.sizes),
            *(workload for workload in sets if workload.batches),
        ]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Inputs that are upscaled one after the other, and timed together."""

    name: str
    """``WIDTHxHEIGHT``, ``BATCHxWIDTHxHEIGHT``, or a set's name."""
    batches: tuple[Batch, ...]
    """``(B, 3, H, W)`` each."""

    @classmethod
    def of_size(cls, size: Size, batch: int = 1) -> Workload:
        """Noise of one size: no network here is faster on some pixels than on others."""
        height, width = size
        noise = np.random.default_rng(0).random((batch, CHANNELS, height, width), np.float32)
        name = f"{width}x{height}"
        return cls(name=f"{batch}x{name}" if batch > 1 else name, batches=(noise,))

    @classmethod
    def of_set(cls, images: ImageSet) -> Workload:
        """The LR images of a set, without those that can't be used."""
        return cls(name=images.name, batches=tuple(_batch(image) for image in images.usable()))

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(len(lr) for lr in self.batches)

    @property
    def output_pixels(self) -> int:
        """Pixels of all results."""
        return sum(int(lr[:, 0].size) for lr in self.batches) * SCALE**2


def _batch(image: TestImage) -> Batch:
    lr = image.lr if image.lr.ndim == 3 else image.lr[..., None].repeat(CHANNELS, axis=2)
    planes = np.ascontiguousarray(lr.transpose(2, 0, 1)[None], np.float32)
    return np.asarray(planes / np.float32(255))
