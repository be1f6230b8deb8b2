"""Shared parts of the caches of compiled code: names, manifests, eviction, clearing.

The caches of engines, TensorRT-RTX kernels and compiled networks name an entry by a hash of all
that it depends on, and describe it in JSON with the SHA-256 of its content.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class CacheEntry:
    """An entry of a cache, for ``agsr cache list``."""

    name: str
    """Hash of all that it depends on."""
    size: int
    """Bytes."""
    sound: bool
    """Whether it is complete and unchanged."""


def digest(facts: Mapping[str, Any]) -> str:
    """Return the SHA-256 of facts as JSON, whatever their order.

    >>> digest({"gpu": "A", "version": 1}) == digest({"version": 1, "gpu": "A"})
    True
    """
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a JSON object; return an empty one if the file is missing or damaged.

    >>> read_manifest(Path("no such file"))
    {}
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def evict(entries: Iterable[Path], limit: int) -> None:
    """Remove the entries, files or folders, that were unused for longest beyond ``limit``."""
    for path in sorted(entries, key=_last_use)[:-limit]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _last_use(path: Path) -> float:
    """Return when an entry was used last; 0 if another process has removed it."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def clear(folder: Path) -> int:
    """Remove a cache's folder; returns the bytes that were freed."""
    freed = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if folder.is_dir():
        shutil.rmtree(folder)
    return freed
