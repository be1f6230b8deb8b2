"""A benchmark from its plan to its result: load all, score all, time all in turns.

Each contender lives in a process of its own (`agsr.bench.runner.worker`) and only one computes at a
time. Quality comes first, image by image; then the rounds, in which every contender takes its turn
on every workload, so that drift of the machine hits all alike.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from agsr.bench.data.sets import ImageSet, Skipped, TestImage
from agsr.bench.doctor import describe
from agsr.bench.runner.entries import Contender, has_checkpoint
from agsr.bench.runner.entry_run import Lane
from agsr.bench.runner.flop_cache import Work
from agsr.bench.runner.plan import BenchPlan
from agsr.bench.runner.results import BenchResult, ImageScore, Limit, Parity, Row, SetScore
from agsr.bench.scoring import PROTOCOL, change, compare, protocol_of
from agsr.datasets.pairs import Image8
from agsr.errors import BackendError
from agsr.metrics import psnr_y

Notify = Callable[[str, float], None]
"""Told what runs, and the share of everything that is done."""

Levels = NDArray[np.float32]


def run(plan: BenchPlan, notify: Notify | None = None) -> BenchResult:
    """Run a benchmark.

    A contender that fails becomes a row that says why. Ctrl-C ends the run; what was finished by
    then is in the result, whose `BenchResult.complete` is false.
    """
    bench = _Bench(plan, notify)
    complete = True
    try:
        bench.load()
        bench.score()
        bench.time()
    except KeyboardInterrupt:
        complete = False
    finally:
        bench.close()
    return bench.result(complete)


class _Bench:
    """The run's state."""

    def __init__(self, plan: BenchPlan, notify: Notify | None) -> None:
        self._plan, self._notify = plan, notify
        self._lanes = {contender: Lane(contender) for contender in plan.contenders}
        self._references = _references(plan)
        self._hidden = {c: Lane(c) for c in self._references if c not in self._lanes}
        self._everyone = {**self._lanes, **self._hidden}
        self._notes: list[str] = []
        self._skipped = 0
        self._limits: dict[tuple[str, str, str], Limit] = {}
        self._work = Work()
        workloads = plan.workloads() if plan.rounds else []
        self._jobs = [(w, b) for w in workloads for b in plan.boundaries]
        self._done, self._all = 0, self._count()

    def load(self) -> None:
        for lane in self._everyone.values():
            self._tell(f"loading {lane.row.contender.label}")
            with lane.attempt():
                lane.load()
        for contender in sorted(self._references, key=lambda c: c.label):
            self._check_reference(contender)

    def _check_reference(self, contender: Contender) -> None:
        """Drop a reference that does not run, or in less than fp32, as some graphs do."""
        lane = self._everyone[contender]
        if lane.row.precision == "fp32":
            return
        self._references.discard(contender)
        if not lane.row.error:
            found = f"{contender.weights} has no fp32 to compare with, only {lane.row.precision}"
            self._notes.append(f"no parity: {found}")
        if contender in self._hidden:
            lane.close()

    def score(self) -> None:
        for images in self._plan.sets:
            scored: dict[Contender, list[ImageScore]] = {c: [] for c in self._lanes}
            skipped: list[Skipped] = []
            for image in images.usable(skipped.append):
                self._score_image(images, image, scored)
            self._note_set(images, skipped)
            usable = len(images.files) - len(skipped)
            for contender, scores in scored.items():
                lane = self._lanes[contender]
                if usable and len(scores) == usable:
                    found = SetScore(set=images.name, images=tuple(scores), skipped=tuple(skipped))
                    lane.row = replace(lane.row, quality=(*lane.row.quality, found))
        for lane in self._hidden.values():
            lane.close()

    def _note_set(self, images: ImageSet, skipped: list[Skipped]) -> None:
        """Record which files of a set were used."""
        self._notes += [f"{images.name}: {note}" for note in images.notes]
        if skipped:
            count, total = len(skipped), len(images.files)
            reasons = "; ".join(found.reason for found in skipped)
            self._skipped += count
            self._notes.append(f"{images.name}: {count} of {total} images skipped: {reasons}")

    def _score_image(
        self, images: ImageSet, image: TestImage, scored: Mapping[Contender, list[ImageScore]]
    ) -> None:
        """One image by all; those that others are compared with come first."""
        results: dict[Contender, Levels] = {}
        for contender in sorted(self._everyone, key=lambda c: c not in self._references):
            lane = self._everyone[contender]
            self._tell(f"{images.name} {image.name}: {contender.label}")
            if lane.worker is None:
                continue
            with lane.attempt(f"{images.name} {image.name}"):
                results[contender] = _levels(lane.upscale(_unit_range(image.lr)))
                if contender in scored:
                    basis = reference_of(contender)
                    reference = results.get(basis) if basis in self._references else None
                    sr, found = self._judge(image, results[contender], reference)
                    scored[contender].append(found)
                    if self._plan.observer:
                        self._plan.observer(images.name, image, contender, sr)

    def _judge(
        self, image: TestImage, levels: Levels, reference: Levels | None
    ) -> tuple[Image8, ImageScore]:
        sr = _rounded(levels)
        scores = compare(sr, image.hr, self._plan.distance)
        parity = None
        if reference is not None:
            difference = np.abs(levels - reference)
            parity = Parity(
                largest=float(difference.max()),
                mean=float(difference.mean()),
                psnr_change=change(scores.psnr, psnr_y(_rounded(reference), image.hr)),
            )
        return sr, ImageScore(image=image.name, scores=scores, parity=parity)

    def time(self) -> None:
        for lane in self._lanes.values():
            for workload, boundary in self._jobs:
                self._tell(f"first call on {workload.name}: {lane.row.contender.label}")
                lane.prepare(workload, boundary, self._plan.turn_seconds)
            lane.weigh()  # before the products, which take memory in some processes only
        for number in range(self._plan.rounds):
            for lane in _rotated(list(self._lanes.values()), number):
                for workload, boundary in self._jobs:
                    label = lane.row.contender.label
                    self._tell(f"round {number + 1} on {workload.name}: {label}")
                    lane.take_turn(workload, boundary)
            self._measure_limits()

    def _measure_limits(self) -> None:
        """A matrix product by one contender of each library, device and precision."""
        seen = set()
        for lane in self._lanes.values():
            key = lane.row.contender.backend, lane.row.device, lane.row.precision
            if lane.worker is None or key in seen:
                continue
            seen.add(key)
            with suppress(BackendError):  # it can't multiply alone: no limit from it
                library, flops, seconds = lane.worker.product()
                rounds = (*(self._limits[key].rounds if key in self._limits else ()), seconds)
                self._limits[key] = Limit(
                    device=lane.row.device,
                    precision=lane.row.precision,
                    library=library,
                    flops=flops,
                    rounds=rounds,
                )

    def _row(self, lane: Lane) -> Row:
        """A contender's row with its timings."""
        found = ((w, lane.timing(w, boundary)) for w, boundary in self._jobs)
        timings = (
            replace(timing, flops=self._work.flops(lane.row.contender, workload))
            for workload, timing in found
            if timing is not None
        )
        return replace(lane.row, timings=tuple(timings))

    def close(self) -> None:
        for lane in self._everyone.values():
            lane.hang_up()  # all can end at the same time
        for lane in self._everyone.values():
            lane.close()

    def result(self, complete: bool) -> BenchResult:
        kinds = sorted({contender.backend for contender in self._references})
        return BenchResult(
            created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            command=self._plan.command,
            environment=describe(),
            rows=tuple(map(self._row, self._lanes.values())),
            limits=tuple(self._limits.values()),
            reference=" or ".join(f"{kind} cpu fp32" for kind in kinds),
            notes=(*self._missing_references(), *self._notes, *self._work.notes),
            complete=complete,
            skipped=self._skipped,
            protocol="; ".join(dict.fromkeys(map(protocol_of, self._plan.sets))) or PROTOCOL,
        )

    def _missing_references(self) -> list[str]:
        """What could not be compared, though its own row may be fine."""
        failed = {lane.row.error for lane in self._hidden.values() if lane.row.error}
        return [f"no parity: {error}" for error in sorted(failed)]

    def _count(self) -> int:
        images = sum(len(images.files) for images in self._plan.sets)
        turns = len(self._lanes) * len(self._jobs) * (self._plan.rounds + 1)
        return len(self._everyone) * (1 + images) + turns

    def _tell(self, what: str) -> None:
        if self._notify is not None:
            self._notify(what, self._done / self._all)
        self._done += 1


def reference_of(contender: Contender) -> Contender | None:
    """What a contender's pixels are compared with: fp32 on torch, or on ONNX Runtime without it.

    None for the baseline and for other people's networks.
    """
    if not contender.is_network or contender.foreign:
        return None
    backend = "torch" if has_checkpoint(contender.weights) and find_spec("torch") else "ort"
    return replace(contender, backend=backend, precision=contender.precision and "fp32")


def _references(plan: BenchPlan) -> set[Contender]:
    """What the plan's contenders are compared with."""
    if not (plan.sets and plan.parity):
        return set()
    return set(filter(None, map(reference_of, plan.contenders)))


def _rotated(lanes: list[Lane], number: int) -> list[Lane]:
    """The order of a round: each goes first in turn, so that nobody always has that place."""
    start = number % len(lanes)
    return lanes[start:] + lanes[:start]


def _unit_range(image: Image8) -> NDArray[np.float32]:
    return np.asarray(image.astype(np.float32) / np.float32(255))


def _levels(sr: NDArray[np.float32]) -> Levels:
    return np.asarray(np.clip(sr, 0, 1) * np.float32(255))


def _rounded(levels: Levels) -> Image8:
    return np.asarray(levels + np.float32(0.5)).astype(np.uint8)
