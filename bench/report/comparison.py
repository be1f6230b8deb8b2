"""Comparison of two benchmark results: what became slower or worse, beyond the noise.

Times are divided by those of a matrix product that both runs measured in the same rounds, so that a
machine that is slower today slows both. The ratio and its confidence interval come from the ranks
of the rounds (Hodges and Lehmann), which assumes no distribution of the noise and is robust to a
few disturbed rounds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from agsr.bench.runner.measurements import PeakThroughput, SetScore, Timing, device_kind
from agsr.bench.runner.results import BenchResult, Row
from agsr.bench.scoring import change

_T = TypeVar("_T")

CONFIDENCE = 0.95
"""Confidence level of the interval of a ratio."""


@dataclass(frozen=True, kw_only=True)
class SpeedChange:
    """One timing in both runs.

    >>> change = SpeedChange(
    ...     label="", ratio=1.1, low=1.02, high=1.2, raw_ratio=1.1, normalized=True
    ... )
    >>> change.regressed(0.05), change.regressed(0.2)
    (True, False)
    """

    label: str
    """Row and workload."""
    ratio: float
    """Time in the new run divided by time in the old one."""
    low: float
    """Lower bound of the ratio at `CONFIDENCE`; 0 with too few rounds."""
    high: float
    """Upper bound of the ratio at `CONFIDENCE`; infinite with too few rounds."""
    raw_ratio: float
    """The ratio of the times themselves."""
    normalized: bool
    """True if all but ``raw_ratio`` are relative to a matrix product that both runs measured."""

    def regressed(self, largest: float) -> bool:
        """Return True if it is slower by more than ``largest`` (0.05 is 5 %), beyond the noise."""
        return self.ratio > 1 + largest and self.low > 1

    def doubtful(self, largest: float) -> bool:
        """Return True if it looks slower by more than ``largest``, which may be noise."""
        return self.ratio > 1 + largest and not self.regressed(largest)


@dataclass(frozen=True, kw_only=True)
class QualityChange:
    """Mean scores of one set in both runs."""

    label: str
    """Row and set."""
    psnr: float
    """Change of PSNR-Y, dB."""
    ssim: float
    """Change of SSIM-Y."""

    def regressed(self, largest: float) -> bool:
        """Return True if PSNR fell by more than ``largest`` dB."""
        return self.psnr < -largest


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Changes between two runs."""

    speed: tuple[SpeedChange, ...]
    """Timings in both runs."""
    quality: tuple[QualityChange, ...]
    """Scores in both runs."""
    missing: tuple[str, ...]
    """Timings and scores of the old run that the new one lacks."""
    different: tuple[str, ...]
    """Rows that are not compared because they ran differently, with the differences."""


def compare_results(old: BenchResult, new: BenchResult) -> Comparison:
    """Compare what both runs measured under the same conditions, by row, workload and set."""
    differences = _differences(old, new)
    alike = (row for row in old.rows if row.entry.label not in differences)
    old = replace(old, rows=tuple(alike))
    times, scores = _shared(_timings(old), _timings(new)), _shared(_scores(old), _scores(new))
    other_images = {
        label: f"images were {_format_images(before)}, are {_format_images(after)}"
        for label, (before, after) in scores.items()
        if _names(before) != _names(after)
    }
    differences |= other_images
    found = {label: pair for label, pair in scores.items() if label not in other_images}
    missing = [f"speed of {label}" for label in _timings(old).keys() - times.keys()]
    missing += [f"quality of {label}" for label in _scores(old).keys() - scores.keys()]
    return Comparison(
        speed=tuple(
            _speed_change(label, _yardstick(old, new, before[0]), before[1], after[1])
            for label, (before, after) in times.items()
        ),
        quality=tuple(
            QualityChange(
                label=label,
                psnr=change(after.mean.psnr, before.mean.psnr),
                ssim=after.mean.ssim - before.mean.ssim,
            )
            for label, (before, after) in found.items()
        ),
        missing=tuple(sorted(missing)),
        different=tuple(f"{label}: {found}" for label, found in differences.items()),
    )


def shift(old: list[float], new: list[float]) -> tuple[float, float, float]:
    """Estimate the ratio of new to old values; return it with its lower and upper bound.

    The ratio is the median of all quotients of a new and an old value (Hodges and Lehmann). The
    bounds are those of the Mann-Whitney test at `CONFIDENCE`; 0 and infinity with too few values:
    fewer than four on each side.

    >>> shift([1.0, 1.0, 1.0, 1.0], [2.0, 2.0, 2.0, 2.0])
    (2.0, 2.0, 2.0)
    >>> shift([1.0], [2.0])
    (2.0, 0.0, inf)
    """
    quotients = sorted(after / before for before in old for after in new)
    pairs, values = len(quotients), len(old) + len(new)
    quantile = statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    spread = math.sqrt(pairs * (values + 1) / 12)
    rank = math.floor(pairs / 2 - quantile * spread + 0.5)
    bounds = (quotients[rank - 1], quotients[-rank]) if rank > 0 else (0.0, math.inf)
    return statistics.median(quotients), *bounds


def _differences(old: BenchResult, new: BenchResult) -> dict[str, str]:
    """Return the differences of rows that ran in both results, but differently, by label."""
    present = {row.entry.label: row for row in new.rows if row.device}
    pairs = [(row, present.get(row.entry.label)) for row in old.rows if row.device]
    found = {
        before.entry.label: "; ".join(
            f"{name} was {was}, is {now}"
            for (name, was), now in zip(
                _conditions(before).items(), _conditions(after).values(), strict=True
            )
            if was != now
        )
        for before, after in pairs
        if after is not None
    }
    return {label: text for label, text in found.items() if text}


def _conditions(row: Row) -> dict[str, str]:
    """Return conditions that affect a row's figures but are missing from its label."""
    threads = row.entry.threads
    return {
        "threads": "one per core" if threads is None else str(threads),
        "hints": row.entry.hints or "none",
        "scale": f"x{row.entry.scale}",
        "device": row.device.partition(" (")[0],  # without the library's version
        "precision": row.precision,
    }


def _shared(old: dict[str, _T], new: dict[str, _T]) -> dict[str, tuple[_T, _T]]:
    return {label: (found, new[label]) for label, found in old.items() if label in new}


def _timings(result: BenchResult) -> dict[str, tuple[Row, Timing]]:
    def found() -> Iterator[tuple[str, tuple[Row, Timing]]]:
        for row in result.rows:
            for timing in row.timings:
                where = "" if timing.boundary == "host" else f", {timing.boundary}"
                yield f"{row.entry.label} on {timing.workload}{where}", (row, timing)

    return dict(found())


def _names(score: SetScore) -> list[str]:
    return [image.image for image in score.images]


def _format_images(score: SetScore) -> str:
    """Format the images of a score, short enough for a message."""
    return f"{len(score.images)} ({', '.join(_names(score)[:3])}{', …' * (len(score.images) > 3)})"


def _scores(result: BenchResult) -> dict[str, SetScore]:
    return {
        f"{row.entry.label} on {score.set}": score for row in result.rows for score in row.quality
    }


def _speed_change(
    label: str, yardstick: tuple[PeakThroughput, PeakThroughput] | None, old: Timing, new: Timing
) -> SpeedChange:
    before, after = old.medians, new.medians
    if yardstick is not None:
        before, after = _relative(before, yardstick[0]), _relative(after, yardstick[1])
    ratio, low, high = shift(before, after)
    return SpeedChange(
        label=label,
        ratio=ratio,
        low=low,
        high=high,
        raw_ratio=new.median / old.median,
        normalized=yardstick is not None,
    )


def _yardstick(
    old: BenchResult, new: BenchResult, row: Row
) -> tuple[PeakThroughput, PeakThroughput] | None:
    """Return the most similar matrix product that both runs measured on the row's hardware."""
    kind = device_kind(row.device)
    known = {(peak.library, peak.device, peak.precision): peak for peak in new.peaks}
    pairs = [
        (peak, known[peak.library, peak.device, peak.precision])
        for peak in old.peaks
        if device_kind(peak.device) == kind and (peak.library, peak.device, peak.precision) in known
    ]

    def similarity(pair: tuple[PeakThroughput, PeakThroughput]) -> tuple[bool, bool, float]:
        peak = pair[0]
        return peak.precision == row.precision, peak.device == row.device, peak.rate

    return max(pairs, key=similarity, default=None)


def _relative(medians: list[float], peak: PeakThroughput) -> list[float]:
    """Divide each round's time by that of one operation of the product in the same round.

    The product may lack the last round if the run was interrupted between the two.
    """
    pairs = zip(medians, peak.rounds, strict=False)
    return [median / (product / peak.flops) for median, product in pairs]
