"""Worker processes: one per entry, so that a crash ends one entry and memory is counted apart.

`Worker` is the parent's handle. It sends a method name and arguments through a pipe to a
`WorkerServer` in the child and waits for the answer, so only one worker computes at a time.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from numpy.typing import NDArray

from agsr.backend import Backend, BackendInfo, Batch
from agsr.bench.runner.entries import Entry
from agsr.errors import AgsrError, BackendError
from agsr.system.child_process import ctrl_c_ignored_by_children, exit_reason
from agsr.system.text import first_line

PATIENCE = 900.0
"""Seconds to wait for an answer; long enough to build a TensorRT engine."""

GRACE = 2.0
"""Seconds for a process to exit by itself before it is killed."""

PRODUCTS = 3
"""Matrix products per round. The median is used, since it scales all other times."""

_KILLED = "; use a smaller --size or fewer entries"
"""Advice after the reason, for a process that was killed."""


class Worker:
    """Handle of an entry's process.

    Every method raises `BackendError` if the entry fails, or its process dies or doesn't answer.

    Args:
        entry: Entry to run.
        patience: Seconds to wait for an answer.
    """

    def __init__(self, entry: Entry, patience: float = PATIENCE) -> None:
        self.entry = entry
        self._patience = patience
        context = multiprocessing.get_context("spawn")
        self._pipe, child_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(child_end, entry), daemon=True)
        with ctrl_c_ignored_by_children():
            self._process.start()
        child_end.close()

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self._process.is_alive()

    def load(self) -> tuple[BackendInfo, float]:
        """Load the network; return its info and the seconds, including its library's import."""
        return self._ask("load")  # type: ignore[no-any-return]

    def upscale(self, image: NDArray[Any]) -> tuple[NDArray[Any], float]:
        """Upscale an image; return the result and the seconds.

        Args:
            image: ``(H, W, 3)`` RGB or ``(H, W)``, of any type that
                `agsr.engines.upscaler.Upscaler` accepts. Networks of a fixed size process it in
                tiles, all others as a whole.

        Returns:
            An image of the same type, ``(4H, 4W, 3)`` or ``(4H, 4W)``, and the seconds.
        """
        return self._ask("upscale", image)  # type: ignore[no-any-return]

    def prepare(self, workload: str, batches: Sequence[Batch], boundary: str) -> float:
        """Prepare a workload and run it for the first time; return the seconds of that call."""
        return self._ask("prepare", workload, batches, boundary)  # type: ignore[no-any-return]

    def time(self, workload: str, boundary: str, calls: int, warm_up: int) -> list[float]:
        """Return the seconds of each of ``calls`` calls, after ``warm_up`` untimed ones."""
        return self._ask("time", workload, boundary, calls, warm_up)  # type: ignore[no-any-return]

    def matrix_product(self) -> tuple[str, float, float]:
        """Time a large matrix product in the entry's precision; return library, FLOPs, seconds."""
        return self._ask("matrix_product")  # type: ignore[no-any-return]

    def peak_memory(self) -> int | None:
        """Return the peak resident memory of the process in bytes; None if unknown."""
        return self._ask("peak_memory")  # type: ignore[no-any-return]

    def hang_up(self) -> None:
        """Ask the process to exit, without waiting for it."""
        self._pipe.close()

    def close(self) -> None:
        """End the process; kill it if it is still computing."""
        self.hang_up()
        self._process.join(timeout=GRACE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _ask(self, method: str, *arguments: Any) -> Any:
        try:
            self._pipe.send((method, arguments))
            if not self._pipe.poll(self._patience):
                self._process.kill()
                self._process.join()
                raise BackendError(f"no answer within {self._patience:g} s; the worker was killed")
            done, value = self._pipe.recv()
        except (EOFError, OSError):
            raise BackendError(self._exit_reason()) from None
        if not done:
            raise BackendError(value)
        return value

    def _exit_reason(self) -> str:
        self._process.join(timeout=GRACE)
        code = self._process.exitcode
        advice = _KILLED if code == -signal.SIGKILL else ""
        return f"the worker process {exit_reason(code)}{advice}"


def _serve(pipe: Connection, entry: Entry) -> None:
    """Run in the child: answer requests until the parent closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if entry.threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(entry.threads)  # torch reads it on import
    server = WorkerServer(entry)
    with suppress(EOFError, OSError):  # the pipe was closed, or the parent is gone
        while True:
            method, arguments = pipe.recv()
            pipe.send(_answer(getattr(server, method), arguments))


def _answer(method: Callable[..., Any], arguments: Sequence[Any]) -> tuple[bool, Any]:
    try:
        return True, method(*arguments)
    except AgsrError as error:
        return False, str(error)
    except Exception as error:  # a library's failure is reported in its row and ends no run
        return False, f"{type(error).__name__}: {first_line(error)}"


class WorkerServer:
    """The child's side of `Worker`: one method per request."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self._backend: Backend | None = None
        self._calls: dict[tuple[str, str], Callable[[], object]] = {}
        self._product: tuple[str, float, Callable[[], object]] | None = None

    @property
    def backend(self) -> Backend:
        """The loaded network."""
        if self._backend is None:
            raise BackendError("the network is not loaded")
        return self._backend

    def load(self) -> tuple[BackendInfo, float]:
        """See `Worker.load`."""
        started = time.perf_counter()
        self._backend = self._entry.open()
        return self._backend.info, time.perf_counter() - started

    def upscale(self, image: NDArray[Any]) -> tuple[NDArray[Any], float]:
        """See `Worker.upscale`."""
        from agsr.engines.upscaler import Upscaler

        upscaler = Upscaler(backend=self.backend, tile=0)
        started = time.perf_counter()
        sr = upscaler(image)
        return sr, time.perf_counter() - started

    def prepare(self, workload: str, batches: Sequence[Batch], boundary: str) -> float:
        """See `Worker.prepare`."""
        call = _workload_call(self.backend, batches, boundary)
        self._calls[workload, boundary] = call
        return elapsed(call)

    def time(self, workload: str, boundary: str, calls: int, warm_up: int) -> list[float]:
        """See `Worker.time`."""
        call = self._calls[workload, boundary]
        for _ in range(warm_up):
            call()
        return [elapsed(call) for _ in range(calls)]

    def matrix_product(self) -> tuple[str, float, float]:
        """See `Worker.matrix_product`."""
        from agsr.bench.runner.peak_flops import matrix_product

        if self._product is None:
            self._product = matrix_product(self._entry, self.backend.info)
            self._product[2]()
        library, flops, call = self._product
        return library, flops, statistics.median(elapsed(call) for _ in range(PRODUCTS))

    def peak_memory(self) -> int | None:
        """See `Worker.peak_memory`."""
        from agsr.bench.runner.memory import peak_memory

        return peak_memory()


def _workload_call(
    backend: Backend, batches: Sequence[Batch], boundary: str
) -> Callable[[], object]:
    if boundary == "host":
        return lambda: [backend.upscale(lr) for lr in batches]
    calls = [backend.bound_call(lr) for lr in batches]
    return lambda: [call() for call in calls]


def elapsed(call: Callable[[], object]) -> float:
    """Return the wall time of one call in seconds; all timings of a benchmark use this clock."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
