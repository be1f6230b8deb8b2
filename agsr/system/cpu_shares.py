"""Equal shares of the usable CPUs for several processes, and the binding of a process to its share.

Data flow: the CPUs of this process's affinity and the quotas of its control groups → a `CpuShare`
per process, which the process passes to `bind` before it loads a library that starts threads.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from agsr.system.control_groups import ROOT, usable_cpus

_TOPOLOGY = "sys/devices/system/cpu/cpu{}/topology"
_THREADS = ("OMP_NUM_THREADS", "OPENCV_FOR_THREADS_NUM", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class CpuShare:
    """Part of the CPUs for one of several processes."""

    threads: int
    """Number of threads that compute; equal in all shares, so that results are, too."""
    cpus: tuple[int, ...] = ()
    """Numbers of the CPUs; empty if processes can't be bound here."""


def cpu_shares(count: int) -> list[CpuShare]:
    """Divide the usable CPUs among ``count`` processes.

    With more processes than CPUs, each computes in one thread and several share a CPU.

    >>> [share.threads for share in cpu_shares(10_000)] == [1] * 10_000
    True
    """
    threads = max(1, usable_cpus() // count)
    return [CpuShare(threads, cpus) for cpus in divided(_ordered(_affinity()), count)]


def divided(cpus: Sequence[int], count: int) -> list[tuple[int, ...]]:
    """Cut CPUs into ``count`` contiguous parts of nearly equal size, none empty.

    >>> divided([0, 4, 1, 5, 2], 2), divided([0, 1], 3)
    ([(0, 4), (1, 5, 2)], [(0,), (0,), (1,)])
    """
    if not cpus:
        return [()] * count
    ends = [len(cpus) * number // count for number in range(count + 1)]
    return [tuple(cpus[start : max(stop, start + 1)]) for start, stop in pairwise(ends)]


def bind(cpus: Collection[int]) -> None:
    """Bind this process to CPUs, where the system can."""
    if not cpus:
        return
    with suppress(OSError):  # some were taken away meanwhile
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, cpus)
        else:
            import psutil

            psutil.Process().cpu_affinity(list(cpus))


def limit_threads(count: int) -> None:
    """Limit the threads of libraries that this process loads later; lower limits stay."""
    for name in _THREADS:
        given = os.environ.get(name, "")
        os.environ[name] = str(
            min(int(given), count) if given.isdecimal() and int(given) else count
        )


def _affinity() -> list[int]:
    """Return the CPUs that this process may use; empty if the system can't bind processes."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    import psutil

    process = psutil.Process()
    return list(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else []


def _ordered(cpus: Sequence[int], root: Path = ROOT) -> list[int]:
    """Sort CPUs by socket and core, so that the two threads of a core lie side by side."""

    def place(cpu: int) -> tuple[int, int, int]:
        folder = root / _TOPOLOGY.format(cpu)
        return _number(folder / "physical_package_id"), _number(folder / "core_id"), cpu

    return sorted(cpus, key=place)


def _number(file: Path) -> int:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # not Linux
        return 0
