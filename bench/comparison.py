"""Two benchmark results side by side: what became slower or worse, beyond the noise.

Times are divided by the same run's matrix product before they are compared: a machine that is
slower today is so for both.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from agsr.bench.results import BenchResult, Row, Timing

BANDS = 3.0
"""Standard errors to each side that count as noise."""


@dataclass(frozen=True, kw_only=True)
class SpeedChange:
    """One timing in both runs."""

    label: str
    """Row and workload."""
    ratio: float
    """Time in the new run over time in the old one, each relative to its matrix product."""
    noise: float
    """How far the ratio may be off 1 by chance."""
    raw_ratio: float
    """The ratio of the times themselves."""

    def regressed(self, largest: float) -> bool:
        """Whether it is slower by more than ``largest`` (0.05 is 5 %), and that isn't noise."""
        return self.ratio > 1 + largest and self.ratio - 1 > self.noise


@dataclass(frozen=True, kw_only=True)
class QualityChange:
    """One set's mean scores in both runs."""

    label: str
    """Row and set."""
    psnr: float
    """Change of PSNR-Y, dB."""
    ssim: float
    """Change of SSIM-Y."""

    def regressed(self, largest: float) -> bool:
        """Whether PSNR fell by more than ``largest`` dB."""
        return self.psnr < -largest


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What changed between two runs."""

    speed: tuple[SpeedChange, ...]
    """Timings that both have."""
    quality: tuple[QualityChange, ...]
    """Scores that both have."""
    missing: tuple[str, ...]
    """What the old run has and the new one lacks."""


def compare_results(old: BenchResult, new: BenchResult) -> Comparison:
    """Compare what both runs measured, by row, workload and set."""
    times, scores = dict(_timings(old)), dict(_qualities(old))
    new_times, new_scores = dict(_timings(new)), dict(_qualities(new))
    return Comparison(
        speed=tuple(
            _speed_change(label, old, times[label], new, new_times[label])
            for label in times
            if label in new_times
        ),
        quality=tuple(
            QualityChange(
                label=label,
                psnr=new_scores[label][0] - scores[label][0],
                ssim=new_scores[label][1] - scores[label][1],
            )
            for label in scores
            if label in new_scores
        ),
        missing=tuple(x for x in (*times, *scores) if x not in new_times | new_scores),
    )


def _timings(result: BenchResult) -> Iterator[tuple[str, tuple[Row, Timing]]]:
    for row in result.rows:
        for timing in row.timings:
            where = "" if timing.boundary == "host" else f", {timing.boundary}"
            yield f"{row.contender.label} on {timing.workload}{where}", (row, timing)


def _qualities(result: BenchResult) -> Iterator[tuple[str, tuple[float, float]]]:
    for row in result.rows:
        for score in row.quality:
            yield f"{row.contender.label} on {score.set}", (score.mean.psnr, score.mean.ssim)


def _speed_change(
    label: str,
    old: BenchResult,
    old_found: tuple[Row, Timing],
    new: BenchResult,
    new_found: tuple[Row, Timing],
) -> SpeedChange:
    before, after = _relative(old, *old_found), _relative(new, *new_found)
    ratio = statistics.median(after) / statistics.median(before)
    return SpeedChange(
        label=label,
        ratio=ratio,
        noise=BANDS * math.hypot(_standard_error(before), _standard_error(after)),
        raw_ratio=new_found[1].median / old_found[1].median,
    )


def _relative(result: BenchResult, row: Row, timing: Timing) -> list[float]:
    """Each round's median, over that round's matrix product where there is one."""
    limit = result.limit(row)
    if limit is None or len(limit.rounds) != len(timing.rounds):
        return timing.medians
    return [median / product for median, product in zip(timing.medians, limit.rounds, strict=True)]


def _standard_error(values: list[float]) -> float:
    """Of the median, as a share of it; from the median absolute deviation, so one bad round counts
    little."""
    centre = statistics.median(values)
    deviation = 1.4826 * statistics.median(abs(value - centre) for value in values)
    return 1.2533 * deviation / math.sqrt(len(values)) / centre
