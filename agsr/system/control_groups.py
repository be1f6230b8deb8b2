"""Control groups of this process (containers, systemd), and the CPUs it may use.

Reads ``/proc`` and ``/sys/fs/cgroup`` for `usable_cpus` and, in `agsr.system.memory`, for memory
limits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

ROOT = Path("/")
_GROUPS = "proc/self/cgroup"
_MOUNT = "sys/fs/cgroup"


def usable_cpus() -> int:
    """Return the number of CPUs that this process may use at once, at least 1.

    This is the minimum of the machine's CPUs, the process's affinity (``taskset``, batch systems,
    cpusets) and the quotas of its control groups (``docker --cpus``), rounded up.

    >>> usable_cpus() >= 1
    True
    """
    return max(1, min([_affinity_count(), *cpu_quotas()]))


def cpu_quotas(root: Path = ROOT) -> Iterator[int]:
    """Yield the CPUs of every quota of this process's control groups, rounded up.

    Args:
        root: Root of the file system.
    """
    for folder, second in group_folders("cpu", root):
        with suppress(OSError, ValueError):  # no such group, or "max"
            if second:
                quota, period = map(int, (folder / "cpu.max").read_text().split())
            else:
                quota = int((folder / "cpu.cfs_quota_us").read_text())
                period = int((folder / "cpu.cfs_period_us").read_text())
            if quota > 0 and period > 0:
                yield -(-quota // period)


def group_folders(controller: str, root: Path = ROOT) -> Iterator[tuple[Path, bool]]:
    """Yield the folders of this process's control groups and their parents.

    Args:
        controller: ``"cpu"`` or ``"memory"``.
        root: Root of the file system.

    Yields:
        A folder, which may not exist, and True for version 2 of control groups.
    """
    try:
        lines = (root / _GROUPS).read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, kinds, name = line.split(":", 2)
        if kinds and controller not in kinds.split(","):
            continue
        top = root / _MOUNT / controller if kinds else root / _MOUNT
        parts = [part for part in name.split("/") if part not in ("", "..")]
        for depth in range(len(parts) + 1):  # in a container, often only the top exists
            yield top.joinpath(*parts[:depth]), not kinds


def _affinity_count() -> int:
    """Return the number of CPUs in this process's affinity."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13; also respects PYTHON_CPU_COUNT
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
