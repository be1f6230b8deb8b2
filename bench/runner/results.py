"""The result of a benchmark: its rows and their environment, to and from JSON.

``bench/runner/schema.json`` describes the JSON; its version is `SCHEMA`. Two names there are older
than those here: an entry is stored as ``contender``, peak throughputs as ``limits``.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from agsr.bench.data.sets import Skipped
from agsr.bench.runner.entries import Entry
from agsr.bench.runner.measurements import (
    ImageScore,
    Parity,
    PeakThroughput,
    SetScore,
    Timing,
    device_kind,
)
from agsr.bench.scoring import PROTOCOL, Scores
from agsr.bench.strict_json import check_types, filled, numbers, seconds, to_json
from agsr.contract import SCALE
from agsr.errors import DatasetError
from agsr.system.text import in_words

_T = TypeVar("_T")

SCHEMA = "agsr-bench-1"
"""Version of the JSON; other versions are rejected."""

_STORED = {"entry": "contender", "peaks": "limits"}
"""Names in the JSON that differ from those of the fields."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Result of one entry: what ran, how well and how fast; or why it failed."""

    entry: Entry
    """The request."""
    device: str = ""
    """Device or execution provider that ran it."""
    precision: str = ""
    """Arithmetic inside the network."""
    steps: int | None = None
    """Time steps; None for a method without steps."""
    error: str = ""
    """Why it didn't run, or stopped; or which parts of the work failed, and why: all reasons,
    separated by ``; ``."""
    load_seconds: float | None = None
    """Loading in a fresh process, including the import of its library."""
    first_call_seconds: float | None = None
    """The very first call, which selects kernels and allocates memory. It runs on the first scored
    image, or without sets on the first workload."""
    peak_memory: int | None = None
    """Largest resident memory of its process until the rounds begin, bytes."""
    device_memory: int | None = None
    """GPU memory in bytes: context, kernels, weights, buffers. None on a CPU."""
    quality: tuple[SetScore, ...] = ()
    """One score per set."""
    timings: tuple[Timing, ...] = ()
    """One timing per workload and boundary."""


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """Result of a whole run."""

    created: str
    """Time of creation, ISO 8601, UTC."""
    command: str
    """The command line."""
    environment: Mapping[str, str]
    """Processor, GPU, versions, threads, commit."""
    rows: tuple[Row, ...]
    """One per entry."""
    peaks: tuple[PeakThroughput, ...] = ()
    """Peak throughput by library, device and precision."""
    reference: str = ""
    """What parity is measured against, always fp32; empty if it was not measured."""
    notes: tuple[str, ...] = ()
    """What is missing, and why."""
    complete: bool = True
    """False if the run was interrupted; the result then holds what was finished."""
    protocol: str = PROTOCOL
    """How quality was measured."""
    skipped: int = 0
    """Unusable images of the sets, excluded from every mean."""
    schema: str = SCHEMA
    """Version of this format."""

    def peak(self, row: Row) -> PeakThroughput | None:
        """Return the fastest product measured on a row's kind of device, in its precision."""
        kind = device_kind(row.device)
        same = (peak for peak in self.peaks if device_kind(peak.device) == kind)
        found = (peak for peak in same if peak.precision == row.precision)
        return max(found, key=lambda peak: peak.rate, default=None)

    def share(self, row: Row, timing: Timing) -> float | None:
        """Return the network's operations per second as a share of the peak throughput."""
        peak = self.peak(row)
        if peak is None or timing.flops is None:
            return None
        return timing.flops / timing.median / peak.rate

    def to_json(self) -> str:
        """Return the result as JSON, including derived figures."""
        rows = [self._row_record(row) for row in self.rows]
        return to_json({**_stored(asdict(self)), "rows": rows}, indent=1)

    def _row_record(self, row: Row) -> dict[str, Any]:
        record = {**_stored(asdict(row)), "label": row.entry.label}
        for score, found in zip(row.quality, record["quality"], strict=True):
            found["mean"] = asdict(score.mean)
            found["parity"] = score.parity and asdict(score.parity)
        for timing, found in zip(row.timings, record["timings"], strict=True):
            found["summary"] = {**timing.summary(), "share": self.share(row, timing)}
        return record

    @classmethod
    def load(cls, path: Path) -> BenchResult:
        """Read a result from JSON.

        Raises:
            DatasetError: The file is not a result, or of another version.
        """
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            found = record.get("schema") if isinstance(record, dict) else None
            if found != SCHEMA:
                raise DatasetError(
                    f"{path}: schema is {found!r}; expected {SCHEMA!r}, as written by "
                    "agsr bench --json"
                )
            return _result(record)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DatasetError(
                f"{path}: not a benchmark result ({in_words(error)}); expected a file written by "
                "agsr bench --json"
            ) from None


def _stored(record: Mapping[str, Any]) -> dict[str, Any]:
    return {_STORED.get(name, name): value for name, value in record.items()}


def _result(record: dict[str, Any]) -> BenchResult:
    parts: dict[str, Any] = {
        "peaks": tuple(map(_peak, record["limits"])),
        "rows": tuple(map(_row, record["rows"])),
        "notes": tuple(record["notes"]),
        "skipped": record.get("skipped", 0),  # absent from earlier files
        "environment": dict(record["environment"]),
    }
    return _make(BenchResult, {**record, **parts})


def _peak(record: dict[str, Any]) -> PeakThroughput:
    (flops,) = seconds([record["flops"]])  # positive, too
    return _make(PeakThroughput, {**record, "flops": flops, "rounds": seconds(record["rounds"])})


def _row(record: dict[str, Any]) -> Row:
    quality = tuple(
        SetScore(
            set=found["set"],
            images=tuple(map(_image, filled(found["images"]))),
            skipped=tuple(_make(Skipped, skipped) for skipped in found.get("skipped", ())),
        )
        for found in record["quality"]
    )
    timings = tuple(
        _make(Timing, {**found, "rounds": tuple(map(seconds, filled(found["rounds"])))})
        for found in record["timings"]
    )
    entry = _make(Entry, {"scale": SCALE, **record["contender"]})  # absent from earlier files
    return _make(Row, {**record, "entry": entry, "quality": quality, "timings": timings})


def _image(record: dict[str, Any]) -> ImageScore:
    parity = Parity(**numbers(record["parity"])) if record["parity"] else None
    scores = Scores(**numbers(record["scores"]))
    return ImageScore(image=record["image"], scores=scores, parity=parity)


def _make(kind: Callable[..., _T], record: Mapping[str, Any]) -> _T:
    """Build a dataclass from a record, which may also hold derived figures."""
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]  # always a dataclass here
    check_types(kind, record)  # type: ignore[arg-type]  # and a type
    return kind(**{field.name: record[field.name] for field in fields})
