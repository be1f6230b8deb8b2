"""What this process may use of the machine: its control groups (containers, systemd), its CPUs.

Files below ``/proc`` and ``/sys/fs/cgroup`` → `usable_cpus` and, for `agsr.system.memory`, the
folders of the groups.
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
    """Return how many CPUs this process may use at once, from 1.

    That is the least of the machine's CPUs, those that the process is bound to (``taskset``, batch
    systems, cpusets) and the quotas of its control groups (``docker --cpus``), rounded up.
    """
    return max(1, min([_bound_to(), *cpu_quotas()]))


def cpu_quotas(root: Path = ROOT) -> Iterator[int]:
    """CPUs by every quota of this process's control groups, rounded up.

    Args:
        root: Of the file system.
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
    """Folders of this process's control groups and of those above.

    Args:
        controller: ``"cpu"`` or ``"memory"``.
        root: Of the file system.

    Returns:
        Folders that may not exist, and whether they belong to the second version of control groups.
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
        for depth in range(len(parts) + 1):  # in a container, the top is often all that is there
            yield top.joinpath(*parts[:depth]), not kinds


def _bound_to() -> int:
    """CPUs that the scheduler may choose for this process."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13; obeys PYTHON_CPU_COUNT, too
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
