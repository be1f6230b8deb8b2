"""Timing what is here against each other, so that ``--backend auto`` can follow it.

Data flow: what is present (`agsr.engines.ranking`) → contenders → `agsr.bench.runner.run`, twice,
since the first start compiles what later ones find → `agsr.engines.timings.Timings`.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator

from agsr.bench.runner.entries import Contender
from agsr.bench.runner.plan import BenchPlan
from agsr.bench.runner.results import BenchResult, Row
from agsr.bench.runner.run import Notify, run
from agsr.contract import DEFAULT_STEPS
from agsr.engines.ranking import available_places, default_precision
from agsr.engines.timings import BackendTiming, Timings, machine_identity
from agsr.errors import BackendError
from agsr.pretrained import DEFAULT_WEIGHTS

SIZE = (180, 320)
"""Height and width that are timed, LR pixels."""

ROUNDS = 5
"""Turns of each."""

LARGEST_NOISE = 0.25
"""Results noisier than this are not kept: half the range of the rounds, of their median."""


def measure(notify: Notify | None = None, size: tuple[int, int] = SIZE) -> BenchResult:
    """Time every backend that is here in what it computes in by itself, and in fp32."""
    contenders = tuple(_contenders())
    loaded = run(BenchPlan(contenders=contenders, rounds=0), notify)
    if not loaded.complete:
        return loaded
    return run(BenchPlan(contenders=contenders, sizes=(size,), rounds=ROUNDS), notify)


def timings(result: BenchResult) -> Timings:
    """The times of what has run.

    Raises:
        BackendError: Nothing ran, or the machine was too busy for the times to mean anything.
    """
    times = {_name(row): _time(row) for row in result.rows if row.timings}
    if not times:
        raise BackendError("nothing could run here; agsr doctor says what is missing")
    noise = max(row.timings[0].noise for row in result.rows if row.timings)
    if noise > LARGEST_NOISE:
        raise BackendError(
            f"not kept: the rounds differ by ±{noise:.0%}, more than {LARGEST_NOISE:.0%}; "
            "try again while nothing else runs"
        )
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    return Timings(times=times, measured=today, identity=machine_identity())


def _contenders() -> Iterator[Contender]:
    for place in available_places():
        for precision in dict.fromkeys((default_precision(place, DEFAULT_WEIGHTS), "fp32")):
            if place.runtime != "trt" or precision != "fp32":  # an engine takes minutes to build
                yield Contender(
                    backend=str(place),
                    weights=DEFAULT_WEIGHTS,
                    steps=DEFAULT_STEPS,
                    precision=precision,
                )


def _name(row: Row) -> str:
    return f"{row.contender.backend} {row.contender.precision}"


def _time(row: Row) -> BackendTiming:
    timing = row.timings[0]
    pixels = timing.output_pixels / timing.images / 16
    first = max((row.first_call_seconds or 0) - timing.median, 0)
    return BackendTiming(
        start=(row.load_seconds or 0) + first,
        per_megapixel=timing.median / pixels * 1e6,
    )
