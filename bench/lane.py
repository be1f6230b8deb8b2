"""A contender on its way through a benchmark."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from agsr.bench.contenders import Contender
from agsr.bench.plan import Boundary, Workload
from agsr.bench.results import Row, Timing
from agsr.bench.worker import Worker
from agsr.errors import BackendError

MOST_CALLS = 100
"""Calls in a turn at most."""


class Lane:
    """A contender on its way: its process, and the row that grows."""

    def __init__(self, contender: Contender) -> None:
        self.row = Row(contender=contender)
        self.worker: Worker | None = None
        self._rounds: dict[tuple[str, Boundary], list[tuple[float, ...]]] = {}
        self._calls: dict[tuple[str, Boundary], int] = {}

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """What fails in here ends this contender, and is told in its row."""
        try:
            yield
        except BackendError as error:
            self.row = replace(self.row, error=str(error))
            self.close()

    def load(self) -> None:
        """Start the process and load the network."""
        self.worker = Worker(self.row.contender)
        info, seconds = self.worker.load()
        self.row = replace(
            self.row,
            device=info.device,
            precision=info.precision,
            steps=info.steps,
            load_seconds=seconds,
        )

    def close(self) -> None:
        """End the process; the row stays."""
        if self.worker is not None:
            self.worker.close()
            self.worker = None

    def prepare(self, workload: Workload, boundary: Boundary, turn_seconds: float) -> None:
        """First calls on a workload, and from them how often to call in a turn."""
        if self.worker is None:
            return
        with self.attempt():
            first = self.worker.prepare(workload.name, workload.batches, boundary)
            if self.row.first_call_seconds is None:
                self.row = replace(self.row, first_call_seconds=first)
            (second,) = self.worker.time(workload.name, boundary, calls=1, warm_up=0)
            wanted = math.ceil(turn_seconds / second)
            self._calls[workload.name, boundary] = min(max(wanted, 1), MOST_CALLS)

    def take_turn(self, workload: Workload, boundary: Boundary) -> None:
        """Time the calls of one round."""
        job = workload.name, boundary
        if self.worker is None or job not in self._calls:
            return
        calls = self._calls[job]
        with self.attempt():
            # The others have cooled the caches; a long call warms up by itself.
            samples = self.worker.time(*job, calls=calls, warm_up=int(calls > 1))
            self._rounds.setdefault(job, []).append(tuple(samples))

    def weigh(self) -> None:
        """Note the memory that was taken."""
        if self.worker is None:
            return
        with self.attempt():
            peak, device = self.worker.memory()
            self.row = replace(self.row, peak_memory=peak, device_memory=device)

    def timing(self, workload: Workload, boundary: Boundary, flops: float | None) -> Timing | None:
        """What the rounds gave; None before the first."""
        rounds = self._rounds.get((workload.name, boundary))
        if not rounds:
            return None
        return Timing(
            workload=workload.name,
            boundary=boundary,
            images=workload.images,
            output_pixels=workload.output_pixels,
            flops=flops,
            rounds=tuple(rounds),
        )
