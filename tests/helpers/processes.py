"""Processes that tests start."""

from __future__ import annotations

import os
from pathlib import Path


def children() -> set[int]:
    """Processes started by this one, zombies included, without multiprocessing's own helper."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            command = (stat.parent / "cmdline").read_bytes()
        except OSError:
            continue  # it ended meanwhile
        if int(fields[1]) == os.getpid() and b"resource_tracker" not in command:
            found.add(int(stat.parent.name))
    return found
