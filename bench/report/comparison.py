"""Two benchmark results side by side: what became slower or worse, beyond the noise.

Times are divided by those of a matrix product that both runs measured in the same rounds: a machine
that is slower today is so for both. How much slower a row is, and within what limits, is told by
the rounds' ranks (Hodges and Lehmann): nothing is assumed of how noise is distributed, and a few
disturbed rounds change little.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from agsr.bench.runner.results import BenchResult, Limit, Row, SetScore, Timing, device_kind
from agsr.bench.scoring import change

_T = TypeVar("_T")

CONFIDENCE = 0.95
"""Of the interval in which a ratio lies."""


@dataclass(frozen=True, kw_only=True)
class SpeedChange:
    """One timing in both runs."""

    label: str
    """Row and workload."""
    ratio: float
    """Time in the new run over time in the old one."""
    low: float
    """The ratio is at least this, at `CONFIDENCE`; 0 if there are too few rounds to tell."""
    high: float
    """The ratio is at most this, at `CONFIDENCE`; infinite if there are too few rounds to tell."""
    raw_ratio: float
    """The ratio of the times themselves."""
    normalised: bool
    """Whether all but ``raw_ratio`` are of times relative to a matrix product of both runs."""

    def regressed(self, largest: float) -> bool:
        """Whether it is slower by more than ``largest`` (0.05 is 5 %), and that isn't noise."""
        return self.ratio > 1 + largest and self.low > 1

    def doubtful(self, largest: float) -> bool:
        """Whether it looks slower by more than ``largest``, but that may be noise."""
        return self.ratio > 1 + largest and not self.regressed(largest)


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
    different: tuple[str, ...]
    """Rows that ran in another way, which are not compared, and in what they differ."""


def compare_results(old: BenchResult, new: BenchResult) -> Comparison:
    """Compare what both runs measured in the same way, by row, workload and set."""
    differences = _differences(old, new)
    alike = (row for row in old.rows if row.contender.label not in differences)
    old = replace(old, rows=tuple(alike))
    times, scores = _shared(_timings(old), _timings(new)), _shared(_scores(old), _scores(new))
    other_images = {
        label: f"images were {_told(before)}, are {_told(after)}"
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
    """How many times larger the new values are, and the least and most that this may be.

    The median of all quotients of a new and an old value (Hodges and Lehmann), and the quotients
    that the Mann-Whitney test at `CONFIDENCE` leaves; 0 and infinity where there are too few
    values: with as many old as new ones, less than four.
    """
    quotients = sorted(after / before for before in old for after in new)
    pairs, values = len(quotients), len(old) + len(new)
    quantile = statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    spread = math.sqrt(pairs * (values + 1) / 12)
    left_out = math.floor(pairs / 2 - quantile * spread + 0.5)
    bounds = (quotients[left_out - 1], quotients[-left_out]) if left_out > 0 else (0.0, math.inf)
    return statistics.median(quotients), *bounds


def _differences(old: BenchResult, new: BenchResult) -> dict[str, str]:
    """Rows that ran in both, but not in the same way: in what they differ, by label."""
    present = {row.contender.label: row for row in new.rows if row.device}
    pairs = [(row, present.get(row.contender.label)) for row in old.rows if row.device]
    found = {
        before.contender.label: "; ".join(
            f"{name} was {was}, is {now}"
            for (name, was), now in zip(_way(before).items(), _way(after).values(), strict=True)
            if was != now
        )
        for before, after in pairs
        if after is not None
    }
    return {label: text for label, text in found.items() if text}


def _way(row: Row) -> dict[str, str]:
    """What a row's label leaves open, but its figures depend on."""
    threads = row.contender.threads
    return {
        "threads": "one per core" if threads is None else str(threads),
        "hints": row.contender.hints or "none",
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
                yield f"{row.contender.label} on {timing.workload}{where}", (row, timing)

    return dict(found())


def _names(score: SetScore) -> list[str]:
    return [image.image for image in score.images]


def _told(score: SetScore) -> str:
    """The images of a score, short enough for a message."""
    return f"{len(score.images)} ({', '.join(_names(score)[:3])}{', …' * (len(score.images) > 3)})"


def _scores(result: BenchResult) -> dict[str, SetScore]:
    return {
        f"{row.contender.label} on {score.set}": score
        for row in result.rows
        for score in row.quality
    }


def _speed_change(
    label: str, yardstick: tuple[Limit, Limit] | None, old: Timing, new: Timing
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
        normalised=yardstick is not None,
    )


def _yardstick(old: BenchResult, new: BenchResult, row: Row) -> tuple[Limit, Limit] | None:
    """A matrix product that both runs measured where the row ran, the most similar one."""
    kind = device_kind(row.device)
    known = {(limit.library, limit.device, limit.precision): limit for limit in new.limits}
    pairs = [
        (limit, known[limit.library, limit.device, limit.precision])
        for limit in old.limits
        if device_kind(limit.device) == kind
        and (limit.library, limit.device, limit.precision) in known
    ]

    def likeness(pair: tuple[Limit, Limit]) -> tuple[bool, bool, float]:
        limit = pair[0]
        return limit.precision == row.precision, limit.device == row.device, limit.rate

    return max(pairs, key=likeness, default=None)


def _relative(medians: list[float], limit: Limit) -> list[float]:
    """Each round's time by that of an operation of the product in the same round.

    The run may have been interrupted between them, so the product may lack the last round.
    """
    pairs = zip(medians, limit.rounds, strict=False)
    return [median / (product / limit.flops) for median, product in pairs]
