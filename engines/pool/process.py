"""The parent's handle of a worker process: start it, send it jobs, receive its messages."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from agsr.backend import BackendInfo
from agsr.engines.pool.devices import WorkerDevice
from agsr.engines.pool.messages import FINISH, STOP, Open, SegmentOrder, Setup, Task
from agsr.engines.pool.worker import serve
from agsr.system.child_process import ctrl_c_ignored_by_children, exit_reason

_AFTER_END = 5.0
"""Seconds for a process to exit after it closed its pipe."""


class WorkerProcess:
    """A process that opens the network and upscales files.

    Args:
        number: From 1, for messages.
        device: What it runs on.
        workers: Number of processes that share the memory.
        weights: As for `Upscaler`.
        options: Further arguments of `Upscaler`; those of the device replace them.
    """

    def __init__(
        self,
        number: int,
        device: WorkerDevice,
        workers: int,
        weights: str,
        options: Mapping[str, Any],
    ) -> None:
        self.name = f"worker {number}" + (f" ({device.name})" if device.name != "cpu" else "")
        self.info: BackendInfo | None = None
        """Set when the network is open."""
        self.held: dict[int, float] = {}
        """Jobs that it has, with their completed shares."""
        self.wants: bool | None = None
        """True if it waits for a job, False if it could read one ahead, None for neither."""
        context = multiprocessing.get_context("spawn")
        pipe, child_end = context.Pipe()
        self.pipe: Connection = pipe
        setup = Setup(device.share, workers, logging.getLogger("agsr").getEffectiveLevel())
        self._process = context.Process(target=serve, args=(child_end, setup), daemon=True)
        with ctrl_c_ignored_by_children():
            self._process.start()
        child_end.close()
        self.send(Open(weights, {**options, **device.options}))

    @property
    def pid(self) -> int | None:
        """Process id."""
        return self._process.pid

    def send(self, message: object) -> None:
        """Send a message; if the process is gone, `receive` reports it."""
        with suppress(OSError):
            self.pipe.send(message)

    def deal(self, task: Task | SegmentOrder) -> None:
        """Send a job."""
        self.held[task.number] = 0.0
        self.wants = None
        self.send(task)

    def receive(self) -> object:
        """Wait for a message.

        Raises:
            EOFError: The process has ended.
        """
        try:
            return self.pipe.recv()
        except OSError:
            raise EOFError from None

    def end_reason(self) -> str:
        """Describe how it ended, after `receive` has raised."""
        self._end(_AFTER_END)
        return exit_reason(self._process.exitcode)

    def stop(self) -> None:
        """Ask it to end now; results that are computed are still written."""
        if self.info is None:  # busy with opening the network
            self._process.terminate()
        else:
            self.send(STOP if self.held else FINISH)

    def close(self, patience: float) -> None:
        """Wait for its end, and kill it after some seconds."""
        self._end(patience)
        self.pipe.close()

    def _end(self, patience: float) -> None:
        self._process.join(patience)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
