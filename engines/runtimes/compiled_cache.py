"""Networks that a runtime has compiled, cached per user so that the next start is faster.

OpenVINO writes a network it has compiled into a folder, and trusts what it finds there: a flipped
bit would become a wrong picture. So each network has its own folder, named by a hash of all that it
depends on, with a manifest of the SHA-256 of every file. A folder appears under its name only when
it is complete, and is removed if its manifest does not match. Without a usable cache everything
runs the same, but starts slower.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from agsr.errors import AgsrError, BackendError
from agsr.pretrained import sha256
from agsr.system import cache_files
from agsr.system.cache_dir import cache_folder, check_private, make_private

_T = TypeVar("_T")

MAX_ENTRIES = 16
"""Networks in the cache, some 2 MB each; the one unused for longest is evicted."""

FORMAT = "agsr-compiled-1"
"""Value of the ``format`` key in a manifest."""

_MANIFEST, _PART = "seal.json", ".part-"
_ENTRIES = "[!.]*"
_DAY = 86_400  # seconds

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CompiledEntry(cache_files.CacheEntry):
    """A compiled network in the cache."""

    facts: dict[str, Any]
    """What it depends on; empty if the manifest can't be read."""


class CompiledCache:
    """A folder of compiled networks.

    Args:
        folder: Parent folder; None means ``$AGSR_CACHE`` or the user's cache folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = (folder or cache_folder()) / "compiled"

    def get(self, facts: Mapping[str, Any], load: Callable[[Path | None], _T]) -> _T:
        """Load a network from the cache, or compile and cache it.

        Args:
            facts: All that it depends on, for JSON.
            load: Loads the network with a folder to compile into or read from; None means no cache.

        Raises:
            AgsrError: ``load`` fails without a cache, too.
        """
        entry = self.folder / cache_files.digest(facts)
        try:
            make_private(self.folder)
            if _is_intact(entry):
                _log.info("reused: %s", entry)
                os.utime(entry)
                return load(entry)
            part = Path(tempfile.mkdtemp(prefix=_PART, dir=self.folder))
        except (AgsrError, OSError) as error:
            _log.info("the compiled network is not cached: %s", error)
            return load(None)
        try:
            return self._compile(entry, part, facts, load)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def entries(self) -> Iterator[CompiledEntry]:
        """List what is in the cache, intact or not."""
        for entry in sorted(self.folder.glob(_ENTRIES)):
            files = [path for path in entry.glob("*") if path.name != _MANIFEST]
            facts = cache_files.read_manifest(entry / _MANIFEST).get("facts")
            yield CompiledEntry(
                name=entry.name,
                size=sum(path.stat().st_size for path in files),
                sound=_is_intact(entry),
                facts=facts if isinstance(facts, dict) else {},
            )

    def clear(self) -> int:
        """Remove everything; returns the bytes that were freed."""
        return cache_files.clear(self.folder)

    def _compile(
        self, entry: Path, part: Path, facts: Mapping[str, Any], load: Callable[[Path | None], _T]
    ) -> _T:
        """Compile into a temporary folder, and rename it if that succeeded."""
        try:
            loaded = load(part)
        except AgsrError:
            return load(None)  # fails again unless the folder was the reason
        try:
            _write_manifest(part, facts)
            if not _is_intact(entry):  # no other process was faster
                shutil.rmtree(entry, ignore_errors=True)
                part.replace(entry)
                self._evict()
        except OSError as error:  # another process came first, or the disk is full
            _log.info("%s: not cached: %s", entry, error)
        return loaded

    def _evict(self) -> None:
        cache_files.evict(self.folder.glob(_ENTRIES), MAX_ENTRIES)
        for part in self.folder.glob(f"{_PART}*"):
            if time.time() - part.stat().st_mtime > _DAY:  # left by a killed process
                shutil.rmtree(part, ignore_errors=True)


def _hashes(entry: Path) -> dict[str, str]:
    """Return the SHA-256 of every file but the manifest."""
    return {path.name: sha256(path) for path in sorted(entry.iterdir()) if path.name != _MANIFEST}


def _write_manifest(entry: Path, facts: Mapping[str, Any]) -> None:
    files = _hashes(entry)
    if not files:
        raise FileNotFoundError(2, "the runtime has written nothing", str(entry))
    content = {"format": FORMAT, "facts": facts, "files": files}
    (entry / _MANIFEST).write_text(json.dumps(content, indent=1))


def _is_intact(entry: Path) -> bool:
    """Return True if every file is there and unchanged, in a folder that only this user writes."""
    manifest = cache_files.read_manifest(entry / _MANIFEST)
    try:
        check_private(entry)
        return manifest.get("format") == FORMAT and manifest.get("files") == _hashes(entry)
    except (BackendError, OSError):
        return False
