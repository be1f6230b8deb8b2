"""A contender on its way through a benchmark."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from agsr.bench.runner.entries import Contender
from agsr.bench.runner.memory import device_memory
from agsr.bench.runner.plan import Boundary, Workload
from agsr.bench.runner.results import Row, Timing, device_kind
from agsr.bench.runner.worker import Worker
from agsr.errors import BackendError

Pixels = NDArray[Any]

MAX_CALLS = 100
"""Calls in a turn at most."""


class Lane:
    """A contender on its way: its process, and the row that grows."""

    def __init__(self, contender: Contender) -> None:
        self.row = Row(contender=contender)
        self.worker: Worker | None = None
        self._failures: dict[str, list[str]] = {}
        self._rounds: dict[tuple[str, Boundary], list[tuple[float, ...]]] = {}
        self._calls: dict[tuple[str, Boundary], int] = {}

    @contextmanager
    def attempt(self, what: str = "") -> Iterator[None]:
        """What fails in here is told in the contender's row, and ends it.

        Args:
            what: A part of the work, like a size that may be too large: if the process survives its
                failure, the contender goes on with the others.
        """
        try:
            yield
        except BackendError as error:
            self._failures.setdefault(str(error), []).append(what)
            self.row = replace(self.row, error=_told(self._failures))
            if not what or self.worker is None or not self.worker.alive:
                self.close()

    def load(self) -> None:
        """Start the process and load the network."""
        with self._weighing():
            self.worker = Worker(self.row.contender)
            info, seconds = self.worker.load()
            self.row = replace(
                self.row,
                device=info.device,
                precision=info.precision,
                steps=info.steps,
                load_seconds=seconds,
            )

    @contextmanager
    def _weighing(self) -> Iterator[None]:
        """What is more in use on the GPU afterwards is this contender's: no other one runs."""
        before = device_memory()
        yield
        after = device_memory()
        if before is not None and after is not None and device_kind(self.row.device) == "cuda":
            taken = (self.row.device_memory or 0) + after - before
            self.row = replace(self.row, device_memory=taken)

    def hang_up(self) -> None:
        """Let the process end by itself; `close` waits for it."""
        if self.worker is not None:
            self.worker.hang_up()

    def close(self) -> None:
        """End the process; the row stays."""
        if self.worker is not None:
            self.worker.close()
            self.worker = None

    def upscale(self, image: Pixels) -> Pixels:
        """Upscale an image as `Worker.upscale` does.

        Raises:
            BackendError: It failed, or there is no process.
        """
        if self.worker is None:
            raise BackendError("its process has ended")
        sr, seconds = self.worker.upscale(image)
        self._note_call(seconds)
        return sr

    def _note_call(self, seconds: float) -> None:
        if self.row.first_call_seconds is None:
            self.row = replace(self.row, first_call_seconds=seconds)

    def prepare(self, workload: Workload, boundary: Boundary, turn_seconds: float) -> None:
        """First calls on a workload, and from them how often to call in a turn."""
        if self.worker is None:
            return
        with self.attempt(workload.name), self._weighing():
            self._note_call(self.worker.prepare(workload.name, workload.batches, boundary))
            (second,) = self.worker.time(workload.name, boundary, calls=1, warm_up=0)
            wanted = math.ceil(turn_seconds / second)
            self._calls[workload.name, boundary] = min(max(wanted, 1), MAX_CALLS)

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
            self.row = replace(self.row, peak_memory=self.worker.memory())

    def timing(self, workload: Workload, boundary: Boundary) -> Timing | None:
        """What the rounds gave, operations not counted; None before the first."""
        rounds = self._rounds.get((workload.name, boundary))
        if not rounds:
            return None
        return Timing(
            workload=workload.name,
            boundary=boundary,
            images=workload.images,
            output_pixels=workload.output_pixels,
            flops=None,
            rounds=tuple(rounds),
        )


def _told(failures: Mapping[str, list[str]]) -> str:
    """All failures in a line: each reason once, behind the parts of the work that it hit."""
    parts = {r: ", ".join(dict.fromkeys(filter(None, where))) for r, where in failures.items()}
    return "; ".join(f"{where}: {reason}" if where else reason for reason, where in parts.items())
