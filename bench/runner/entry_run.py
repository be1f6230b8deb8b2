"""One entry during a benchmark: its worker process, and the row of results that grows.

`agsr.bench.runner.run` calls the entries in turn; `agsr.bench.runner.worker` does the work.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from agsr.bench.runner.entries import Entry
from agsr.bench.runner.measurements import Timing, device_kind
from agsr.bench.runner.memory import device_memory
from agsr.bench.runner.plan import Boundary, Workload
from agsr.bench.runner.results import Row
from agsr.bench.runner.worker import Worker
from agsr.errors import BackendError

Pixels = NDArray[Any]

MAX_CALLS = 100
"""Largest number of calls per turn."""


class EntryRun:
    """State of one entry during a benchmark.

    Attributes:
        row: Results so far.
        worker: The entry's process; None before `load` and after a failure or `close`.
    """

    def __init__(self, entry: Entry) -> None:
        self.row = Row(entry=entry)
        self.worker: Worker | None = None
        self._failures: dict[str, list[str]] = {}
        self._rounds: dict[tuple[str, Boundary], list[tuple[float, ...]]] = {}
        self._calls: dict[tuple[str, Boundary], int] = {}

    @contextmanager
    def attempt(self, task: str = "") -> Iterator[None]:
        """Record a failure of the block in the row and end the entry's process.

        Args:
            task: Part of the work that may fail alone, like a size that is too large: if the
                process survives the failure, the entry continues with the other parts.
        """
        try:
            yield
        except BackendError as error:
            self._failures.setdefault(str(error), []).append(task)
            self.row = replace(self.row, error=_format_failures(self._failures))
            if not task or self.worker is None or not self.worker.alive:
                self.close()

    def load(self) -> None:
        """Start the process and load the network."""
        with self._device_memory_counted():
            self.worker = Worker(self.row.entry)
            info, seconds = self.worker.load()
            self.row = replace(
                self.row,
                device=info.device,
                precision=info.precision,
                steps=info.steps,
                load_seconds=seconds,
            )

    @contextmanager
    def _device_memory_counted(self) -> Iterator[None]:
        """Add the growth of GPU memory in the block to the row: no other entry runs then."""
        before = device_memory()
        yield
        after = device_memory()
        if before is not None and after is not None and device_kind(self.row.device) == "cuda":
            total = (self.row.device_memory or 0) + after - before
            self.row = replace(self.row, device_memory=total)

    def hang_up(self) -> None:
        """Ask the process to exit; `close` waits for it."""
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
            raise BackendError("the worker process has ended")
        sr, seconds = self.worker.upscale(image)
        self._note_first_call(seconds)
        return sr

    def _note_first_call(self, seconds: float) -> None:
        if self.row.first_call_seconds is None:
            self.row = replace(self.row, first_call_seconds=seconds)

    def prepare(self, workload: Workload, boundary: Boundary, turn_seconds: float) -> None:
        """Run a workload for the first time, and choose the number of calls per turn."""
        if self.worker is None:
            return
        with self.attempt(workload.name), self._device_memory_counted():
            self._note_first_call(self.worker.prepare(workload.name, workload.batches, boundary))
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
            # The other entries have evicted the caches; a long call warms up by itself.
            samples = self.worker.time(*job, calls=calls, warm_up=int(calls > 1))
            self._rounds.setdefault(job, []).append(tuple(samples))

    def note_peak_memory(self) -> None:
        """Record the peak memory of the process in the row."""
        if self.worker is None:
            return
        with self.attempt():
            self.row = replace(self.row, peak_memory=self.worker.peak_memory())

    def timing(self, workload: Workload, boundary: Boundary) -> Timing | None:
        """Return the times of all rounds, without FLOPs; None before the first round."""
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


def _format_failures(failures: Mapping[str, list[str]]) -> str:
    """Format all failures on one line: each reason once, after the tasks that it affected."""
    tasks = {r: ", ".join(dict.fromkeys(filter(None, found))) for r, found in failures.items()}
    return "; ".join(f"{task}: {reason}" if task else reason for reason, task in tasks.items())
