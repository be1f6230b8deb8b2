"""The processes of a pool: opened on their devices, replaced when they die, stopped together.

`agsr.engines.pool.pool` deals jobs to them and handles their messages.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from agsr.backend import BackendInfo
from agsr.engines.places import AUTO
from agsr.engines.pool.devices import WorkerDevice
from agsr.engines.pool.messages import Build, Done, Failed, Logged, Opened
from agsr.engines.pool.process import WorkerProcess
from agsr.errors import BackendError, RequestError
from agsr.system.signals import GRACE
from agsr.system.text import counted

if TYPE_CHECKING:
    from agsr.engines.picture_upscaler import NetworkFacts
    from agsr.engines.tensorrt.progress import Report

_STOPPING = GRACE - 1
"""Seconds for workers to write finished results; SIGTERM ends this process after `GRACE`."""

_log = logging.getLogger(__name__)


@dataclass
class Slot:
    """A place for a worker, whose process may be replaced."""

    number: int
    """From 1."""
    device: WorkerDevice
    process: WorkerProcess | None = None
    deaths: int = 0
    """In a row, without a finished file."""
    is_open: bool = True
    """Whether a process may run here; False after it failed for good."""


class Crew:
    """Worker processes.

    Args:
        devices: One per process.
        weights: As for `Upscaler`.
        options: Further arguments of `Upscaler`.
        restarts: Times that a worker may die in a row before it is not replaced.
    """

    def __init__(
        self,
        devices: Sequence[WorkerDevice],
        weights: str,
        options: Mapping[str, Any],
        restarts: int,
    ) -> None:
        self._slots = [Slot(number, device) for number, device in enumerate(devices, 1)]
        self._weights, self._options, self._restarts = weights, options, restarts
        self._first: BackendInfo | None = None
        self.facts: NetworkFacts | None = None
        """Of the first network that was opened; they hold for all."""
        self._known_messages = set[str]()
        self.last_end = ""
        """How the last worker that was lost ended."""

    @property
    def places(self) -> int:
        """Number of workers that run or may be started."""
        return sum(slot.is_open for slot in self._slots)

    def staffed(self) -> list[tuple[Slot, WorkerProcess]]:
        """Return the running processes, with their slots."""
        return [(slot, slot.process) for slot in self._slots if slot.process is not None]

    def open(self, progress: Report) -> BackendInfo:
        """Open the network in one process; its choice of backend holds for all others.

        Raises:
            AgsrError: It can't be opened on any device; the error is that of the first.
        """
        if self._first is not None:
            return self._first
        errors: dict[str, Exception] = {}
        for slot in self._slots:
            try:
                self._first = self._open_first(slot, progress)
            except RequestError:
                raise
            except Exception as error:
                errors[slot.device.name] = error
                slot.is_open = False
                if slot.device.name == "cpu":  # the others would fail in the same way
                    break
                continue
            for name, failure in errors.items():
                _log.warning("%s can't be used: %s", name, failure)
            self._options = settled(self._options, self._first)
            return self._first
        raise next(iter(errors.values()))

    def hire(self, jobs: int) -> None:
        """Start processes until there is one per job that waits, as far as there are places."""
        idle = sum(not process.held for _, process in self.staffed())
        for slot in self._slots:
            if idle < jobs and slot.is_open and slot.process is None:
                self._start(slot)
                idle += 1

    def admit(self, slot: Slot, process: WorkerProcess, info: BackendInfo) -> None:
        """Use a process only if it runs the network in the same way as the first."""
        if self._first is not None and comparable(info) != comparable(self._first):
            self.dismiss(slot, process, f"runs {info.summary}, not {self._first.summary}")
            return
        process.info = info
        share = slot.device.share
        threads, cpus = counted(share.threads, "thread"), ",".join(map(str, share.cpus)) or "any"
        _log.info("%s: process %s, %s, CPU %s", process.name, process.pid, threads, cpus)

    def dismiss(self, slot: Slot, process: WorkerProcess, reason: str) -> None:
        """End a process that can't be used, and don't replace it."""
        slot.is_open, slot.process = False, None
        process.stop()
        process.close(GRACE)
        self.last_end = f"{process.name} {reason}"
        _log.warning("%s; %s left", self.last_end, counted(self.places, "worker"))

    def bury(self, slot: Slot, process: WorkerProcess) -> str:
        """Clear the place of a process that died; return how it ended."""
        slot.process = None
        reason = process.end_reason()
        process.close(0)
        slot.deaths += 1
        slot.is_open = slot.deaths <= self._restarts
        self.last_end = f"{process.name} {reason}"
        return reason

    def log(self, process: WorkerProcess, message: Logged) -> None:
        """Log a worker's message here, but not what the first one logged when it was opened."""
        if process.info is None and message.text in self._known_messages:
            return
        if self._first is None:
            self._known_messages.add(message.text)
        logger = logging.getLogger(message.name)
        if logger.isEnabledFor(message.level):
            logger.log(message.level, "%s", message.text)

    def stop(self) -> Iterator[Done]:
        """Stop all processes; yield what they still finish."""
        deadline = time.monotonic() + _STOPPING
        running = [process for _, process in self.staffed()]
        for process in running:
            process.stop()
        pipes: dict[Any, WorkerProcess] = {process.pipe: process for process in running}
        while pipes and (left := deadline - time.monotonic()) > 0:
            for pipe in wait(list(pipes), left):
                try:
                    message = pipes[pipe].receive()
                except Exception:  # it has ended, or the interruption cut a message
                    del pipes[pipe]
                    continue
                if isinstance(message, Done):
                    yield message
        self.close(deadline)

    def close(self, deadline: float | None = None) -> None:
        """End the processes; kill those that don't end by themselves.

        Args:
            deadline: By `time.monotonic`; None for `GRACE` seconds from now.
        """
        for _, process in self.staffed():
            process.stop()
        deadline = time.monotonic() + GRACE if deadline is None else deadline
        for slot, process in self.staffed():
            process.close(max(0.0, deadline - time.monotonic()))
            slot.process = None

    def _start(self, slot: Slot) -> WorkerProcess:
        count = len(self._slots)
        slot.process = WorkerProcess(slot.number, slot.device, count, self._weights, self._options)
        return slot.process

    def _open_first(self, slot: Slot, progress: Report) -> BackendInfo:
        process = self._start(slot)
        while process.info is None:
            try:
                message = process.receive()
            except EOFError:
                raise BackendError(f"the worker process {self.bury(slot, process)}") from None
            if isinstance(message, Build) and not progress(message.phase, message.share):
                process.stop()
            elif isinstance(message, Failed):
                slot.process = None
                process.close(GRACE)
                raise message.error
            elif isinstance(message, Logged):
                self.log(process, message)
            elif isinstance(message, Opened):
                self.facts = message.facts
                self.admit(slot, process, message.info)
        return process.info


def settled(options: Mapping[str, Any], info: BackendInfo) -> Mapping[str, Any]:
    """Return the options that open what the first worker opened, with its precision.

    A precision that is chosen again, for a backend that is named now, may be another one.
    """
    if options.get("backend", AUTO) != AUTO or options.get("provider") is not None:
        return options
    return {**options, "backend": info.name, "precision": info.precision}


def comparable(info: BackendInfo) -> tuple[object, ...]:
    """Return what has to be equal for equal results."""
    return info.name, info.precision, info.steps, info.scale, info.ensemble, info.weights_hash
