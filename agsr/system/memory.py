"""Main memory that this process may still allocate.

This is the minimum of the machine's available memory, the rest of the process's control-group
limits (containers, systemd) and the rest of its address space (``ulimit -v``).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from agsr.system.control_groups import ROOT, group_folders

_MACHINE = "proc/meminfo"
_FREE = "MemAvailable:"
_UNLIMITED = 1 << 60
"""Version 1 of control groups has no unlimited value, but absurdly large ones."""

_sharers = 1


def share_memory(processes: int) -> None:
    """Let `free_memory` return an equal share for one of several processes that work at once."""
    global _sharers
    _sharers = processes


def free_memory() -> int:
    """Return the bytes of main memory that this process may still allocate.

    >>> free_memory() > 0
    True
    """
    shared = min([_available(), *group_limits()]) // _sharers
    return max(0, min([shared, *_address_space()]))


def _available() -> int:
    """Return the bytes that the machine has free, or can free at once."""
    try:
        lines = (ROOT / _MACHINE).read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(_FREE))
    except (OSError, StopIteration):  # not Linux
        import psutil  # does the same there, but is slow to import

        return int(psutil.virtual_memory().available)


def group_limits(root: Path = ROOT) -> Iterator[int]:
    """Yield the remaining bytes of every memory limit of this process's control groups.

    Args:
        root: Root of the file system.
    """
    for folder, limit, usage, cache in _groups(root):
        try:
            total = int((folder / limit).read_text())
            used = int((folder / usage).read_text()) - _cached(folder / "memory.stat", cache)
        except (OSError, ValueError):  # no such group, or "max"
            continue
        if total < _UNLIMITED:
            yield total - used


def _groups(root: Path) -> Iterator[tuple[Path, str, str, str]]:
    """Yield folders of groups, and the names of their limit, usage and cache entries."""
    for folder, second in group_folders("memory", root):
        if second:
            yield folder, "memory.max", "memory.current", "inactive_file"
        else:
            limit, usage = "memory.limit_in_bytes", "memory.usage_in_bytes"
            yield folder, limit, usage, "total_inactive_file"


def _cached(statistics: Path, name: str) -> int:
    """Return the bytes of reclaimable file cache, which count as used."""
    lines = (line.split() for line in statistics.read_text().splitlines())
    return next((int(value) for key, value in lines if key == name), 0)


def _address_space() -> Iterator[int]:
    if sys.platform == "win32":
        return
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        import psutil

        used: int = psutil.Process().memory_info().vms
        yield limit - used
