"""How signals end a command: what is complete is told, nothing half-written stays."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

INTERRUPTED = 128 + 2
"""Exit status after Ctrl-C (SIGINT), as shells have it."""
TERMINATED = 128 + 15
"""Exit status after SIGTERM, as shells have it."""

BOTH = (signal.SIGINT, signal.SIGTERM)
"""What ends a command from outside."""

GRACE = 5.0
"""Seconds from SIGTERM to the end, whatever still runs: half of what containers wait."""


class Terminated(KeyboardInterrupt):
    """SIGTERM came, as from ``kill``, ``timeout``, a container or a batch system that stops."""


@contextmanager
def handled(by: Callable[[int, Any], object], *numbers: signal.Signals) -> Iterator[None]:
    """Signals are handled by a function, and as before afterwards."""
    previous = [signal.signal(number, by) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends a command as Ctrl-C does, once: cleaning up is not disturbed by another.

    After `GRACE` seconds the process ends nevertheless: it may be writing to a pipe that nobody
    reads. Nothing changes where SIGTERM is ignored already, or in a thread, which can't hear it.

    Raises:
        Terminated: It came.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    end = threading.Timer(GRACE, os._exit, [TERMINATED])
    end.daemon = True

    def terminate(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        end.start()
        raise Terminated

    try:
        with handled(terminate, signal.SIGTERM):
            yield
    finally:
        end.cancel()


@dataclass
class Ending:
    """How a command that `interruptible` guards was interrupted."""

    status: int = INTERRUPTED
    """Exit status: that of the signal."""


@contextmanager
def interruptible() -> Iterator[Ending]:
    """Ctrl-C or SIGTERM interrupts once; after that, what is finished is written undisturbed.

    Raises:
        KeyboardInterrupt: One of them came.
    """
    ending = Ending()

    def interrupt(number: int, _: object) -> None:
        for each in BOTH:
            signal.signal(each, signal.SIG_IGN)
        ending.status = 128 + number
        raise KeyboardInterrupt

    with handled(interrupt, *BOTH):
        yield ending
