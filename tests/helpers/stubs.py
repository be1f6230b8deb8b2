"""Stub backends and entries.

Without torch, so that a process that runs one starts fast.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agsr.backend import Backend, BackendInfo, Batch
from agsr.bench.runner.entries import Entry
from agsr.bench.runner.worker import WorkerServer, _answer
from agsr.errors import BackendError


class Repeat(Backend):
    """Upscales by repeating pixels: every expected value is known exactly."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.closed = 0
        self.info = BackendInfo(
            name="repeat",
            device="cpu",
            precision="fp32",
            steps=1,
            receptive_radius=3,
            model="none",
            weights_hash="",
        )

    def _run(self, lr: Batch) -> Batch:
        self.shapes.append(lr.shape)
        return lr.repeat(4, axis=2).repeat(4, axis=3)

    def close(self) -> None:
        self.closed += 1


class Misbehaving(Repeat):
    """Misbehaves after ``good_calls`` calls."""

    def __init__(self, act: Callable[[], object], good_calls: int) -> None:
        super().__init__()
        self._act, self._left = act, good_calls

    def _run(self, lr: Batch) -> Batch:
        self._left -= 1
        if self._left < 0:
            self._act()
        return super()._run(lr)


class Small(Repeat):
    """Accepts images of at most 12 pixels a side."""

    def _run(self, lr: Batch) -> Batch:
        if max(lr.shape[2:]) > 12:
            raise BackendError("too large")
        return super()._run(lr)


FIRST_CALL = 0.05
"""Seconds that the first call of `SlowAtFirst` takes."""


class SlowAtFirst(Repeat):
    """Has a slow first call, like a runtime that selects kernels."""

    def _run(self, lr: Batch) -> Batch:
        if not self.shapes:
            time.sleep(FIRST_CALL)
        return super()._run(lr)


def _fail() -> None:
    raise ValueError("a foreign library's error\nand its long explanation")


ACTS: dict[str, Callable[[], object]] = {
    "fails": _fail,
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "aborts": os.abort,
    "segfaults": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "exits": lambda: os._exit(3),
    "hangs": lambda: time.sleep(60),
}


@dataclass(frozen=True, kw_only=True)
class Stub(Entry):
    """An entry whose backend is named after its misbehaviour, and repeats pixels until then."""

    good_calls: int = 0
    """-1: it is missing as a reference (``ort``)."""
    arithmetic: str = "fp32"
    """Reported precision."""

    def open(self) -> Backend:
        if self.backend == "ort" and self.good_calls < 0:
            raise BackendError("the reference is not here")
        if self.backend == "absent":
            raise BackendError("it is not here; get it somewhere else")
        if self.backend == "small":
            return Small()
        if self.backend == "slow at first":
            return SlowAtFirst()
        act = ACTS.get(self.backend)
        backend = Misbehaving(act, self.good_calls) if act else Repeat()
        device = "cuda:0" if self.place.kind == "cuda" else backend.info.device
        backend.info = replace(backend.info, device=device, precision=self.arithmetic)
        return backend


class InProcessWorker:
    """A `agsr.bench.runner.worker.Worker` without a process, which records its calls."""

    calls: Sequence[tuple[str, str]] = ()
    """Method and entry's label, of all instances."""

    def __init__(self, entry: Entry) -> None:
        self._entry, self._server = entry, WorkerServer(entry)

    def __getattr__(self, method: str) -> Callable[..., Any]:
        def ask(*arguments: Any, **named: Any) -> Any:
            InProcessWorker.calls = (*InProcessWorker.calls, (method, self._entry.label))
            answer = getattr(self._server, method)
            done, value = _answer(lambda *given: answer(*given, **named), arguments)
            if not done:
                raise BackendError(value)
            return value

        return ask

    alive = True

    def hang_up(self) -> None:
        """There is no process."""

    def close(self) -> None:
        """There is no process."""
