"""Child processes: start them so that Ctrl-C reaches the parent only, and describe how they died.

Used by the workers of ``agsr bench`` and of ``agsr infer --devices``. The parent ends its children;
they also end when their pipe to it is closed.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ctrl_c_ignored_by_children() -> Iterator[None]:
    """Make processes started in the block ignore Ctrl-C from the start: they inherit it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers; the children do so a little later
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def exit_reason(code: int | None) -> str:
    """Describe how a process ended, to follow its name in a message.

    >>> exit_reason(-9), exit_reason(-11), exit_reason(3)
    ('was killed (SIGKILL), probably out of memory', 'crashed (SIGSEGV)', 'exited with status 3')

    Args:
        code: `multiprocessing.Process.exitcode`.
    """
    if code is None or code >= 0:
        return f"exited with status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:  # a real-time signal
        name = f"signal {-code}"
    killed = hasattr(signal, "SIGKILL") and -code == signal.SIGKILL
    ended = "was killed" if killed or -code == signal.SIGTERM else "crashed"
    return f"{ended} ({name})" + (", probably out of memory" if killed else "")
