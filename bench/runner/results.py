"""What a benchmark found, as data: rows of quality and speed, with raw samples, to and from JSON.

The JSON's shape is described by ``bench/runner/schema.json``; its version is `SCHEMA`.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from agsr.bench.data.sets import Skipped
from agsr.bench.runner.entries import Contender
from agsr.bench.scoring import PROTOCOL, Scores
from agsr.bench.strict_json import check_types, filled, numbers, seconds, to_json
from agsr.errors import DatasetError, in_words

_T = TypeVar("_T")

SCHEMA = "agsr-bench-1"
"""Version of the JSON; another one is refused."""


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far an image is from the reference's, in 8-bit levels before rounding."""

    largest: float
    """Largest difference of any value."""
    mean: float
    """Mean absolute difference."""
    psnr_change: float
    """PSNR-Y less the reference's, dB."""


@dataclass(frozen=True, kw_only=True)
class ImageScore:
    """One image of a set."""

    image: str
    """Its name."""
    scores: Scores
    """Against the original."""
    parity: Parity | None = None
    """Against the reference; None where there is none."""


@dataclass(frozen=True, kw_only=True)
class SetScore:
    """One set, image by image."""

    set: str
    """Its name."""
    images: tuple[ImageScore, ...]
    """In the set's order."""
    skipped: tuple[Skipped, ...] = ()
    """Images that can't be used, and are not in the mean."""

    @property
    def mean(self) -> Scores:
        """Unweighted mean over the images."""
        scores = [image.scores for image in self.images]
        lpips = [found.lpips for found in scores if found.lpips is not None]
        return Scores(
            psnr=statistics.fmean(found.psnr for found in scores),
            ssim=statistics.fmean(found.ssim for found in scores),
            lpips=statistics.fmean(lpips) if len(lpips) == len(scores) else None,
        )

    @property
    def parity(self) -> Parity | None:
        """Largest difference anywhere; mean difference and PSNR change over the images."""
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
    """Seconds of one workload on one row, by round; all rows take their turn in each round."""

    workload: str
    """``320x180``, or a set's name: all its images, one after the other."""
    boundary: str
    """``host``: from a numpy array to a numpy array. ``device``: copies to and from it left out."""
    images: int
    """Images in a workload."""
    output_pixels: int
    """Pixels of its results."""
    flops: float | None
    """Floating-point operations of its products and convolutions, counted from the ONNX graph; a
    multiplication and the addition behind it are two. None where that couldn't be counted."""
    rounds: tuple[tuple[float, ...], ...]
    """Raw samples, seconds."""

    @property
    def samples(self) -> list[float]:
        """All samples, seconds."""
        return [sample for samples in self.rounds for sample in samples]

    @property
    def medians(self) -> list[float]:
        """Each round's median, seconds."""
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
        """Derived figures: times in seconds, rates per second."""
        return {
            "median": self.median,
            "p95": float(np.percentile(self.samples, 95)),
            "p99": float(np.percentile(self.samples, 99)),
            "noise": self.noise,
            "images_per_second": self.images / self.median,
            "output_megapixels_per_second": self.output_pixels / self.median / 1e6,
        }


@dataclass(frozen=True, kw_only=True)
class Row:
    """One contender: what ran, how well and how fast; or why it didn't."""

    contender: Contender
    """What was asked for."""
    device: str = ""
    """What it ran on: the device or execution provider that was got."""
    precision: str = ""
    """Arithmetic inside the network."""
    steps: int | None = None
    """Time steps; None for what has none."""
    error: str = ""
    """Why it didn't run, or stopped; or which parts of the work it could not do, and why: all
    reasons, with ``; `` between them."""
    load_seconds: float | None = None
    """Loading in a fresh process, the import of its library included."""
    first_call_seconds: float | None = None
    """The first call of all: kernels are chosen and memory is got. It is on the first image that is
    scored, or without sets on the first workload."""
    peak_memory: int | None = None
    """Largest resident memory of its process until the rounds begin, bytes."""
    device_memory: int | None = None
    """GPU memory it took, bytes: context, kernels, weights, buffers. None on a CPU."""
    quality: tuple[SetScore, ...] = ()
    """A score per set."""
    timings: tuple[Timing, ...] = ()
    """A timing per workload and boundary."""


@dataclass(frozen=True, kw_only=True)
class Limit:
    """How fast a large matrix product is there, measured in the same rounds."""

    device: str
    """Device or execution provider."""
    precision: str
    """Arithmetic."""
    library: str
    """What multiplied."""
    flops: float
    """Floating-point operations of one product."""
    rounds: tuple[float, ...]
    """Seconds of one product, in each round."""

    @property
    def rate(self) -> float:
        """Operations per second in the fastest round: other programs can only slow it down."""
        return self.flops / min(self.rounds)


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """A whole run."""

    created: str
    """When, ISO 8601, UTC."""
    command: str
    """The command line."""
    environment: Mapping[str, str]
    """Processor, GPU, versions, threads, commit."""
    rows: tuple[Row, ...]
    """One per contender."""
    limits: tuple[Limit, ...] = ()
    """What the machine could do at best."""
    reference: str = ""
    """What parity is measured against, fp32 always; empty if it was not."""
    notes: tuple[str, ...] = ()
    """What is missing, and why."""
    complete: bool = True
    """False if the run was interrupted: what was finished by then is here."""
    protocol: str = PROTOCOL
    """How quality was measured."""
    skipped: int = 0
    """Images of the sets that can't be used, and are not in any mean."""
    schema: str = SCHEMA
    """Version of this format."""

    def limit(self, row: Row) -> Limit | None:
        """The fastest product measured for a row's device kind and precision."""
        kind = device_kind(row.device)
        same = (limit for limit in self.limits if device_kind(limit.device) == kind)
        found = (limit for limit in same if limit.precision == row.precision)
        return max(found, key=lambda limit: limit.rate, default=None)

    def share(self, row: Row, timing: Timing) -> float | None:
        """The network's operations per second, as a share of the machine's limit."""
        limit = self.limit(row)
        if limit is None or timing.flops is None:
            return None
        return timing.flops / timing.median / limit.rate

    def to_json(self) -> str:
        """The result as JSON, derived figures included."""
        record = asdict(self)
        for row, found in zip(self.rows, record["rows"], strict=True):
            found["label"] = row.contender.label
            for score, entry in zip(row.quality, found["quality"], strict=True):
                entry["mean"] = asdict(score.mean)
                entry["parity"] = score.parity and asdict(score.parity)
            for timing, entry in zip(row.timings, found["timings"], strict=True):
                entry["summary"] = {**timing.summary(), "share": self.share(row, timing)}
        return to_json(record, indent=1)

    @classmethod
    def load(cls, path: Path) -> BenchResult:
        """Read the JSON of a run.

        Raises:
            DatasetError: The file is not one, or of another version.
        """
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            found = record.get("schema") if isinstance(record, dict) else None
            if found != SCHEMA:
                raise DatasetError(
                    f"{path}: schema is {found!r}; expected {SCHEMA!r}, as agsr bench --json "
                    "writes it"
                )
            return _result(record)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DatasetError(
                f"{path}: not a benchmark's result ({in_words(error)}); expected a file that agsr "
                "bench --json wrote"
            ) from None


def device_kind(device: str) -> str:
    """``cuda`` or ``cpu``: which machine a device's speed is that of."""
    return "cuda" if "cuda" in device.lower() or "tensorrt" in device.lower() else "cpu"


def _result(record: dict[str, Any]) -> BenchResult:
    limits = tuple(map(_limit, record["limits"]))
    rows = tuple(map(_row, record["rows"]))
    notes = tuple(record["notes"])
    found: dict[str, Any] = {"rows": rows, "limits": limits, "notes": notes}
    found |= {"skipped": record.get("skipped", 0)}  # earlier files have none
    return _make(BenchResult, {**record, **found, "environment": dict(record["environment"])})


def _limit(record: dict[str, Any]) -> Limit:
    (flops,) = seconds([record["flops"]])  # positive, too
    return _make(Limit, {**record, "flops": flops, "rounds": seconds(record["rounds"])})


def _row(record: dict[str, Any]) -> Row:
    quality = tuple(
        SetScore(
            set=entry["set"],
            images=tuple(map(_image, filled(entry["images"]))),
            skipped=tuple(_make(Skipped, skipped) for skipped in entry.get("skipped", ())),
        )
        for entry in record["quality"]
    )
    timings = tuple(
        _make(Timing, {**entry, "rounds": tuple(map(seconds, filled(entry["rounds"])))})
        for entry in record["timings"]
    )
    contender = _make(Contender, record["contender"])
    return _make(Row, {**record, "contender": contender, "quality": quality, "timings": timings})


def _image(record: dict[str, Any]) -> ImageScore:
    parity = Parity(**numbers(record["parity"])) if record["parity"] else None
    scores = Scores(**numbers(record["scores"]))
    return ImageScore(image=record["image"], scores=scores, parity=parity)


def _make(kind: Callable[..., _T], record: Mapping[str, Any]) -> _T:
    """Build a dataclass from a record that may hold derived figures besides."""
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]  # all that come here are dataclasses
    check_types(kind, record)  # type: ignore[arg-type]  # and types
    return kind(**{field.name: record[field.name] for field in fields})
