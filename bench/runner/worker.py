"""A contender in a process of its own: a crash ends that process only, and its memory is its own.

`Worker` is the parent's handle; it sends a method's name and arguments through a pipe to a
`_Station` in the child and waits for the answer, so of all workers only one ever computes.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

from numpy.typing import NDArray

from agsr.backend import Backend, BackendInfo, Batch
from agsr.bench.runner.clock import seconds
from agsr.bench.runner.entries import Contender
from agsr.errors import AgsrError, BackendError, first_line

PATIENCE = 900.0
"""Seconds to wait for an answer: a TensorRT engine may be built meanwhile."""

GRACE = 2.0
"""Seconds that a process has to end by itself."""

PRODUCTS = 3
"""Matrix products a round; their median counts, as it scales the times of all."""

_KILLED = "its process was killed: out of memory? Try a smaller --size or fewer contenders"


class Worker:
    """A contender's process.

    Args:
        contender: What it runs.
        patience: Seconds to wait for an answer.

    Its methods raise `BackendError` if the contender fails, its process dies or doesn't answer.
    """

    def __init__(self, contender: Contender, patience: float = PATIENCE) -> None:
        self.contender = contender
        self._patience = patience
        context = multiprocessing.get_context("spawn")
        self._pipe, far = context.Pipe()
        self._process = context.Process(target=_serve, args=(far, contender), daemon=True)
        with _ctrl_c_is_ours():
            self._process.start()
        far.close()

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.is_alive()

    def load(self) -> tuple[BackendInfo, float]:
        """Load the network: what it is, and seconds, its library's import included."""
        return self._ask("load")  # type: ignore[no-any-return]

    def upscale(self, image: NDArray[Any]) -> tuple[NDArray[Any], float]:
        """Upscale an image: the result, and seconds.

        Args:
            image: ``(H, W, 3)`` RGB or ``(H, W)``, as `agsr.engines.upscaler.Upscaler` takes it.
                Networks of a fixed size get tiles of it, all others the whole.

        Returns:
            An image four times as high and as wide, of the same kind, and the time it took.
        """
        return self._ask("upscale", image)  # type: ignore[no-any-return]

    def prepare(self, workload: str, batches: Sequence[Batch], boundary: str) -> float:
        """Get a workload ready and run it for the first time: seconds of that call."""
        return self._ask("prepare", workload, batches, boundary)  # type: ignore[no-any-return]

    def time(self, workload: str, boundary: str, calls: int, warm_up: int) -> list[float]:
        """Seconds of each of so many calls, after some that are not counted."""
        return self._ask("time", workload, boundary, calls, warm_up)  # type: ignore[no-any-return]

    def product(self) -> tuple[str, float, float]:
        """A large matrix product in the contender's precision: library, operations, seconds."""
        return self._ask("product")  # type: ignore[no-any-return]

    def memory(self) -> int | None:
        """Largest resident memory of the process, bytes; None where the system doesn't tell."""
        return self._ask("memory")  # type: ignore[no-any-return]

    def hang_up(self) -> None:
        """Let the process end by itself, without waiting for it."""
        self._pipe.close()

    def close(self) -> None:
        """End the process, by force if it is still computing."""
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
                raise BackendError(f"no answer within {self._patience:g} s; it was ended")
            done, value = self._pipe.recv()
        except (EOFError, OSError):
            raise BackendError(self._obituary()) from None
        if not done:
            raise BackendError(value)
        return value

    def _obituary(self) -> str:
        self._process.join(timeout=GRACE)
        code = self._process.exitcode
        if code is None or code >= 0:
            return f"its process ended (exit status {code})"
        if -code == signal.SIGKILL:
            return _KILLED
        return f"its process crashed ({signal.Signals(-code).name})"


@contextmanager
def _ctrl_c_is_ours() -> Iterator[None]:
    """A process that is started in here ignores Ctrl-C from its first moment: it inherits that."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may; `_serve` does it a little later
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(pipe: Connection, contender: Contender) -> None:
    """The child: answer until the parent hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if contender.threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(contender.threads)  # read when torch is imported
    station = _Station(contender)
    with suppress(EOFError, OSError):  # the parent hung up, or is gone
        while True:
            method, arguments = pipe.recv()
            pipe.send(_answer(getattr(station, method), arguments))


def _answer(method: Callable[..., Any], arguments: Sequence[Any]) -> tuple[bool, Any]:
    try:
        return True, method(*arguments)
    except AgsrError as error:
        return False, str(error)
    except Exception as error:  # a foreign library's failure is a row of the report, not the end
        return False, f"{type(error).__name__}: {first_line(error)}"


class _Station:
    """What the child does."""

    def __init__(self, contender: Contender) -> None:
        self._contender = contender
        self._backend: Backend | None = None
        self._runs: dict[tuple[str, str], Callable[[], object]] = {}
        self._product: tuple[str, float, Callable[[], object]] | None = None

    @property
    def backend(self) -> Backend:
        """The loaded network."""
        if self._backend is None:
            raise BackendError("not loaded")
        return self._backend

    def load(self) -> tuple[BackendInfo, float]:
        """See `Worker.load`."""
        started = time.perf_counter()
        self._backend = self._contender.open()
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
        run = _workload(self.backend, batches, boundary)
        self._runs[workload, boundary] = run
        return seconds(run)

    def time(self, workload: str, boundary: str, calls: int, warm_up: int) -> list[float]:
        """See `Worker.time`."""
        run = self._runs[workload, boundary]
        for _ in range(warm_up):
            run()
        return [seconds(run) for _ in range(calls)]

    def product(self) -> tuple[str, float, float]:
        """See `Worker.product`."""
        from agsr.bench.runner.peak_flops import matrix_product

        if self._product is None:
            self._product = matrix_product(self._contender, self.backend.info)
            self._product[2]()
        library, flops, run = self._product
        return library, flops, statistics.median(seconds(run) for _ in range(PRODUCTS))

    def memory(self) -> int | None:
        """See `Worker.memory`."""
        from agsr.bench.runner.memory import peak_memory

        return peak_memory()


def _workload(backend: Backend, batches: Sequence[Batch], boundary: str) -> Callable[[], object]:
    if boundary == "host":
        return lambda: [backend.upscale(lr) for lr in batches]
    runs = [backend.bound_call(lr) for lr in batches]
    return lambda: [run() for run in runs]
