"""Times the installed backends, so that ``--backend auto`` can choose by measurement.

Data flow: available places (`agsr.engines.ranking`) → entries → `agsr.bench.runner.run`, twice,
since the first start fills compilation caches → `agsr.engines.timings.Timings`.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator

from agsr.bench.runner.entries import Entry
from agsr.bench.runner.plan import BenchPlan
from agsr.bench.runner.results import BenchResult, Row
from agsr.bench.runner.run import Notify, run
from agsr.contract import DEFAULT_STEPS
from agsr.engines.ranking import available_places, default_precision
from agsr.engines.timings import BackendTiming, Timings, machine_identity
from agsr.errors import BackendError
from agsr.pretrained import DEFAULT_WEIGHTS

SIZE = (180, 320)
"""Height and width of the timed input, LR pixels."""

ROUNDS = 5
"""Rounds per entry."""

LARGEST_NOISE = 0.25
"""Largest noise that is saved: half the range of the rounds, as a share of their median."""


def measure(notify: Notify | None = None, size: tuple[int, int] = SIZE) -> BenchResult:
    """Time every installed backend in its default precision and in fp32."""
    entries = tuple(_entries())
    loaded = run(BenchPlan(entries=entries, rounds=0), notify)
    if not loaded.complete:
        return loaded
    return run(BenchPlan(entries=entries, sizes=(size,), rounds=ROUNDS), notify)


def timings(result: BenchResult) -> Timings:
    """Return the times of all backends that ran.

    Raises:
        BackendError: None ran, or the times are too noisy because the machine was busy.
    """
    times = {_name(row): _time(row) for row in result.rows if row.timings}
    if not times:
        raise BackendError("no backend runs here; agsr doctor lists what is missing")
    noise = max(row.timings[0].noise for row in result.rows if row.timings)
    if noise > LARGEST_NOISE:
        raise BackendError(
            f"not saved: the rounds differ by ±{noise:.0%}, more than {LARGEST_NOISE:.0%}; "
            "try again while no other programs run"
        )
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    return Timings(times=times, measured=today, identity=machine_identity())


def _entries() -> Iterator[Entry]:
    for place in available_places():
        for precision in dict.fromkeys((default_precision(place, DEFAULT_WEIGHTS), "fp32")):
            if place.runtime != "trt" or precision != "fp32":  # an engine takes minutes to build
                yield Entry(
                    backend=str(place),
                    weights=DEFAULT_WEIGHTS,
                    steps=DEFAULT_STEPS,
                    precision=precision,
                )


def _name(row: Row) -> str:
    return f"{row.entry.backend} {row.entry.precision}"


def _time(row: Row) -> BackendTiming:
    timing = row.timings[0]
    pixels = timing.output_pixels / timing.images / 16
    first = max((row.first_call_seconds or 0) - timing.median, 0)
    return BackendTiming(
        start=(row.load_seconds or 0) + first,
        per_megapixel=timing.median / pixels * 1e6,
    )
