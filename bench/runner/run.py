"""Runs a benchmark, from its plan to its result: load all, score all, time all in turns.

Each entry has a worker process (`agsr.bench.runner.worker`), and only one computes at a time.
Quality is scored first, image by image. Then come the rounds, in which every entry takes its turn
on every workload, so that drift of the machine affects all alike.
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
from agsr.bench.runner.entries import Entry, has_checkpoint
from agsr.bench.runner.entry_run import EntryRun
from agsr.bench.runner.flops import FlopCounter
from agsr.bench.runner.measurements import ImageScore, Parity, PeakThroughput, SetScore
from agsr.bench.runner.plan import BenchPlan
from agsr.bench.runner.results import BenchResult, Row
from agsr.bench.scoring import change, compare, protocol, protocol_of
from agsr.datasets.pairs import Image8
from agsr.errors import BackendError
from agsr.metrics import psnr_y
from agsr.metrics.psnr_ssim import border_of

Notify = Callable[[str, float], None]
"""Called with the current activity and the completed share of the run, 0 to 1."""

Levels = NDArray[np.float32]


def run(plan: BenchPlan, notify: Notify | None = None) -> BenchResult:
    """Run a benchmark.

    An entry that fails becomes a row with the reason. Ctrl-C ends the run: the result then holds
    what was finished, and `BenchResult.complete` is False.
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
    """State of a run."""

    def __init__(self, plan: BenchPlan, notify: Notify | None) -> None:
        self._plan, self._notify = plan, notify
        self._runs = {entry: EntryRun(entry) for entry in plan.entries}
        self._references = _references(plan)
        self._hidden = {c: EntryRun(c) for c in self._references if c not in self._runs}
        self._all_runs = {**self._runs, **self._hidden}
        self._notes: list[str] = []
        self._skipped = 0
        self._peaks: dict[tuple[str, str, str], PeakThroughput] = {}
        self._flops = FlopCounter()
        workloads = plan.workloads() if plan.rounds else []
        self._jobs = [(w, b) for w in workloads for b in plan.boundaries]
        self._done, self._total = 0, self._count()

    def load(self) -> None:
        for entry_run in self._all_runs.values():
            self._report(f"loading {entry_run.row.entry.label}")
            with entry_run.attempt():
                entry_run.load()
        for entry in sorted(self._references, key=lambda c: c.label):
            self._check_reference(entry)

    def _check_reference(self, entry: Entry) -> None:
        """Drop a reference that fails, or runs in less than fp32, as some graphs do."""
        entry_run = self._all_runs[entry]
        if entry_run.row.precision == "fp32":
            return
        self._references.discard(entry)
        if not entry_run.row.error:
            found = f"{entry.weights} runs in {entry_run.row.precision} only, not in fp32"
            self._notes.append(f"no parity: {found}")
        if entry in self._hidden:
            entry_run.close()

    def score(self) -> None:
        for images in self._plan.sets:
            scored: dict[Entry, list[ImageScore]] = {c: [] for c in self._runs}
            skipped: list[Skipped] = []
            for image in images.usable(skipped.append):
                self._score_image(images, image, scored)
            self._note_set(images, skipped)
            usable = len(images.files) - len(skipped)
            for entry, scores in scored.items():
                entry_run = self._runs[entry]
                if usable and len(scores) == usable:
                    found = SetScore(set=images.name, images=tuple(scores), skipped=tuple(skipped))
                    entry_run.row = replace(entry_run.row, quality=(*entry_run.row.quality, found))
        for entry_run in self._hidden.values():
            entry_run.close()

    def _note_set(self, images: ImageSet, skipped: list[Skipped]) -> None:
        """Note which files of a set were used."""
        self._notes += [f"{images.name}: {note}" for note in images.notes]
        if skipped:
            count, total = len(skipped), len(images.files)
            reasons = "; ".join(found.reason for found in skipped)
            self._skipped += count
            self._notes.append(f"{images.name}: {count} of {total} images skipped: {reasons}")

    def _score_image(
        self, images: ImageSet, image: TestImage, scored: Mapping[Entry, list[ImageScore]]
    ) -> None:
        """Score one image by all entries; references come first."""
        results: dict[Entry, Levels] = {}
        for entry in sorted(self._all_runs, key=lambda c: c not in self._references):
            entry_run = self._all_runs[entry]
            self._report(f"{images.name} {image.name}: {entry.label}")
            if entry_run.worker is None:
                continue
            with entry_run.attempt(f"{images.name} {image.name}"):
                results[entry] = _levels(entry_run.upscale(_unit_range(image.lr)))
                if entry in scored:
                    basis = reference_of(entry)
                    reference = results.get(basis) if basis in self._references else None
                    sr, found = self._judge(image, results[entry], reference)
                    scored[entry].append(found)
                    if self._plan.observer:
                        self._plan.observer(images.name, image, entry, sr)

    def _judge(
        self, image: TestImage, levels: Levels, reference: Levels | None
    ) -> tuple[Image8, ImageScore]:
        sr = _rounded(levels)
        scale = self._plan.scale
        scores = compare(sr, image.hr, self._plan.distance, scale)
        parity = None
        if reference is not None:
            difference = np.abs(levels - reference)
            parity = Parity(
                largest=float(difference.max()),
                mean=float(difference.mean()),
                psnr_change=change(
                    scores.psnr, psnr_y(_rounded(reference), image.hr, border_of(scale))
                ),
            )
        return sr, ImageScore(image=image.name, scores=scores, parity=parity)

    def time(self) -> None:
        for entry_run in self._runs.values():
            for workload, boundary in self._jobs:
                self._report(f"first call on {workload.name}: {entry_run.row.entry.label}")
                entry_run.prepare(workload, boundary, self._plan.turn_seconds)
            entry_run.note_peak_memory()  # before the products, which only some processes compute
        for number in range(self._plan.rounds):
            for entry_run in _rotated(list(self._runs.values()), number):
                for workload, boundary in self._jobs:
                    label = entry_run.row.entry.label
                    self._report(f"round {number + 1} on {workload.name}: {label}")
                    entry_run.take_turn(workload, boundary)
            self._measure_peaks()

    def _measure_peaks(self) -> None:
        """Time a matrix product by one entry of each library, device and precision."""
        seen = set()
        for entry_run in self._runs.values():
            key = entry_run.row.entry.backend, entry_run.row.device, entry_run.row.precision
            if entry_run.worker is None or key in seen:
                continue
            seen.add(key)
            with suppress(BackendError):  # its library offers no bare product
                library, flops, seconds = entry_run.worker.matrix_product()
                rounds = (*(self._peaks[key].rounds if key in self._peaks else ()), seconds)
                self._peaks[key] = PeakThroughput(
                    device=entry_run.row.device,
                    precision=entry_run.row.precision,
                    library=library,
                    flops=flops,
                    rounds=rounds,
                )

    def _row(self, entry_run: EntryRun) -> Row:
        """Return an entry's row with its timings."""
        found = ((w, entry_run.timing(w, boundary)) for w, boundary in self._jobs)
        timings = (
            replace(timing, flops=self._flops.count(entry_run.row.entry, workload))
            for workload, timing in found
            if timing is not None
        )
        return replace(entry_run.row, timings=tuple(timings))

    def close(self) -> None:
        for entry_run in self._all_runs.values():
            entry_run.hang_up()  # so that all exit at the same time
        for entry_run in self._all_runs.values():
            entry_run.close()

    def result(self, complete: bool) -> BenchResult:
        kinds = sorted({entry.backend for entry in self._references})
        return BenchResult(
            created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            command=self._plan.command,
            environment=describe(),
            rows=tuple(map(self._row, self._runs.values())),
            peaks=tuple(self._peaks.values()),
            reference=" or ".join(f"{kind} cpu fp32" for kind in kinds),
            notes=(*self._missing_references(), *self._notes, *self._flops.notes),
            complete=complete,
            skipped=self._skipped,
            protocol="; ".join(dict.fromkeys(map(protocol_of, self._plan.sets)))
            or protocol(self._plan.scale),
        )

    def _missing_references(self) -> list[str]:
        """Note references that failed; the rows they were for may be fine."""
        failed = {entry_run.row.error for entry_run in self._hidden.values() if entry_run.row.error}
        return [f"no parity: {error}" for error in sorted(failed)]

    def _count(self) -> int:
        images = sum(len(images.files) for images in self._plan.sets)
        turns = len(self._runs) * len(self._jobs) * (self._plan.rounds + 1)
        return len(self._all_runs) * (1 + images) + turns

    def _report(self, what: str) -> None:
        if self._notify is not None:
            self._notify(what, self._done / self._total)
        self._done += 1


def reference_of(entry: Entry) -> Entry | None:
    """Return the entry whose pixels are the reference: fp32 on torch, else on ONNX Runtime.

    None for the baseline and for foreign networks.
    """
    if not entry.is_network or entry.foreign:
        return None
    backend = "torch" if has_checkpoint(entry.weights) and find_spec("torch") else "ort"
    return replace(entry, backend=backend, precision=entry.precision and "fp32", url=None)


def _references(plan: BenchPlan) -> set[Entry]:
    """Return the reference entries of a plan."""
    if not (plan.sets and plan.parity):
        return set()
    return set(filter(None, map(reference_of, plan.entries)))


def _rotated(runs: list[EntryRun], number: int) -> list[EntryRun]:
    """Return the order of a round: each entry goes first in turn, so none always does."""
    start = number % len(runs)
    return runs[start:] + runs[:start]


def _unit_range(image: Image8) -> NDArray[np.float32]:
    return np.asarray(image.astype(np.float32) / np.float32(255))


def _levels(sr: NDArray[np.float32]) -> Levels:
    return np.asarray(np.clip(sr, 0, 1) * np.float32(255))


def _rounded(levels: Levels) -> Image8:
    return np.asarray(levels + np.float32(0.5)).astype(np.uint8)
