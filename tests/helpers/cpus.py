"""One CPU for each process of pytest-xdist, bound when this file is imported.

Libraries start as many threads as the process has CPUs, and let them spin while they wait: with a
process per CPU, those of one hinder the others, and the tests of training take four times as much
processor time. Children inherit the binding. `conftest` imports this file before anything that
counts CPUs; its fixture ``all_cpus`` is for tests of several threads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
"""Number of this process, from 0; empty without pytest-xdist."""

if hasattr(os, "sched_getaffinity"):  # Linux
    _all = sorted(os.sched_getaffinity(0))
    if _WORKER:
        os.sched_setaffinity(0, {_all[int(_WORKER) % len(_all)]})


@contextmanager
def unbound() -> Iterator[None]:
    """Binds this thread, and the threads and processes that it starts, to all CPUs again."""
    if not hasattr(os, "sched_getaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, _all)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
