"""Signal handling: report finished work, leave no partial files."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

INTERRUPTED = 128 + 2
"""Exit status after Ctrl-C (SIGINT), as in shells."""
TERMINATED = 128 + 15
"""Exit status after SIGTERM, as in shells."""

BOTH = (signal.SIGINT, signal.SIGTERM)
"""Signals that end a command."""

GRACE = 5.0
"""Seconds from SIGTERM to a forced exit: half of what containers wait."""


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived, as from ``kill``, ``timeout``, a container or a batch system."""


@contextmanager
def handled(by: Callable[[int, Any], object], *numbers: signal.Signals) -> Iterator[None]:
    """Handle signals by a function within the block; restore the handlers afterwards."""
    previous = [signal.signal(number, by) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)


@contextmanager
def terminable() -> Iterator[None]:
    """Make SIGTERM end a command like Ctrl-C, once: a second one doesn't interrupt the cleanup.

    After `GRACE` seconds the process exits in any case, as it may be writing to a pipe without a
    reader. Does nothing if SIGTERM is already ignored, or outside the main thread.

    Raises:
        Terminated: SIGTERM arrived.
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
class Interruption:
    """Result of `interruptible`."""

    status: int = INTERRUPTED
    """Exit status of the signal."""


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Let Ctrl-C or SIGTERM interrupt once; ignore both while finished work is written.

    Raises:
        KeyboardInterrupt: One of them arrived.
    """
    interruption = Interruption()

    def interrupt(number: int, _: object) -> None:
        for each in BOTH:
            signal.signal(each, signal.SIG_IGN)
        interruption.status = 128 + number
        raise KeyboardInterrupt

    with handled(interrupt, *BOTH):
        yield interruption
