"""Measured quality and speed: the parts that `agsr.bench.runner.results` puts together.

`agsr.bench.runner.run` makes the scores, `agsr.bench.runner.entry_run` the timings.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import numpy as np

from agsr.bench.data.sets import Skipped
from agsr.bench.scoring import Scores, mean_scores


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Difference between an image and the reference's, in 8-bit levels before rounding."""

    largest: float
    """Largest difference of any value."""
    mean: float
    """Mean absolute difference."""
    psnr_change: float
    """PSNR-Y minus the reference's, dB."""


@dataclass(frozen=True, kw_only=True)
class ImageScore:
    """Scores of one image of a set."""

    image: str
    """Name of the image."""
    scores: Scores
    """Compared with the original."""
    parity: Parity | None = None
    """Compared with the reference; None without one."""


@dataclass(frozen=True, kw_only=True)
class SetScore:
    """Scores of one set, image by image."""

    set: str
    """Name of the set."""
    images: tuple[ImageScore, ...]
    """In the set's order."""
    skipped: tuple[Skipped, ...] = ()
    """Unusable images, excluded from the mean."""

    @property
    def mean(self) -> Scores:
        """Unweighted mean over the images."""
        return mean_scores([image.scores for image in self.images])

    @property
    def parity(self) -> Parity | None:
        """Largest difference in any image; mean difference and PSNR change over the images."""
        found = [image.parity for image in self.images if image.parity]
        if not found:
            return None
        return Parity(
            largest=max(parity.largest for parity in found),
            mean=statistics.fmean(parity.mean for parity in found),
            psnr_change=statistics.fmean(parity.psnr_change for parity in found),
        )


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of one workload on one row, by round; all rows take their turn in each round.

    >>> timing = Timing(workload="320x180", boundary="host", images=1, output_pixels=921600,
    ...                 flops=None, rounds=((0.2, 0.3), (0.4,)))
    >>> timing.samples, timing.medians
    ([0.2, 0.3, 0.4], [0.25, 0.4])
    """

    workload: str
    """``320x180``, or a set's name: all its images, one after the other."""
    boundary: str
    """``host``: from a numpy array to a numpy array. ``device``: without copies to and from it."""
    images: int
    """Images in a workload."""
    output_pixels: int
    """Pixels of its results."""
    flops: float | None
    """Floating-point operations of its matrix products and convolutions, counted from the ONNX
    graph; a multiply-add is two. None if they couldn't be counted."""
    rounds: tuple[tuple[float, ...], ...]
    """Raw samples, seconds."""

    @property
    def samples(self) -> list[float]:
        """All samples, seconds."""
        return [sample for samples in self.rounds for sample in samples]

    @property
    def medians(self) -> list[float]:
        """Median of each round, seconds."""
        return [statistics.median(samples) for samples in self.rounds]

    @property
    def median(self) -> float:
        """Median of the rounds' medians, seconds."""
        return statistics.median(self.medians)

    @property
    def noise(self) -> float:
        """Half the range of the rounds' medians, as a share of their median."""
        return (max(self.medians) - min(self.medians)) / 2 / self.median

    def summary(self) -> dict[str, float]:
        """Return the derived figures: times in seconds, rates per second."""
        return {
            "median": self.median,
            "p95": float(np.percentile(self.samples, 95)),
            "p99": float(np.percentile(self.samples, 99)),
            "noise": self.noise,
            "images_per_second": self.images / self.median,
            "output_megapixels_per_second": self.output_pixels / self.median / 1e6,
        }


@dataclass(frozen=True, kw_only=True)
class PeakThroughput:
    """Throughput of a large matrix product on one device, measured in the same rounds.

    The compute roof of a roofline model: no network runs faster than this.
    """

    device: str
    """Device or execution provider."""
    precision: str
    """Arithmetic of the product."""
    library: str
    """Library that multiplied."""
    flops: float
    """Floating-point operations of one product."""
    rounds: tuple[float, ...]
    """Seconds of one product, in each round."""

    @property
    def rate(self) -> float:
        """Operations per second in the fastest round: other programs can only slow it down."""
        return self.flops / min(self.rounds)


def device_kind(device: str) -> str:
    """Return ``cuda`` or ``cpu``: the hardware that determines a device's speed.

    >>> device_kind("CUDAExecutionProvider"), device_kind("AUTO:CPU")
    ('cuda', 'cpu')
    """
    return "cuda" if "cuda" in device.lower() or "tensorrt" in device.lower() else "cpu"
