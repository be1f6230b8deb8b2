"""Backends and contenders that stand in for real ones.

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
from agsr.bench.runner.entries import Contender
from agsr.bench.runner.worker import _answer, _Station
from agsr.errors import BackendError


class Repeat(Backend):
    """Enlarges by repeating pixels: every expected value is known exactly."""

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
    """Does something else instead, but for the first so many calls."""

    def __init__(self, act: Callable[[], object], good_calls: int) -> None:
        super().__init__()
        self._act, self._left = act, good_calls

    def _run(self, lr: Batch) -> Batch:
        self._left -= 1
        if self._left < 0:
            self._act()
        return super()._run(lr)


class Small(Repeat):
    """Takes images of at most 12 pixels a side."""

    def _run(self, lr: Batch) -> Batch:
        if max(lr.shape[2:]) > 12:
            raise BackendError("too large")
        return super()._run(lr)


FIRST_CALL = 0.05
"""Seconds that the first call of `SlowAtFirst` takes."""


class SlowAtFirst(Repeat):
    """Takes its time in the first call, as what chooses kernels does."""

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
class Stub(Contender):
    """A contender whose backend is named by what it does, and repeats pixels until then."""

    good_calls: int = 0
    """-1: as a reference (``ort``) it is not there."""
    arithmetic: str = "fp32"
    """What it computes in."""

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


class Desk:
    """A `agsr.bench.runner.worker.Worker` without a process; it notes what it is asked."""

    asked: Sequence[tuple[str, str]] = ()
    """Method and contender's label, of all desks."""

    def __init__(self, contender: Contender) -> None:
        self._contender, self._station = contender, _Station(contender)

    def __getattr__(self, method: str) -> Callable[..., Any]:
        def ask(*arguments: Any, **named: Any) -> Any:
            Desk.asked = (*Desk.asked, (method, self._contender.label))
            answer = getattr(self._station, method)
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
