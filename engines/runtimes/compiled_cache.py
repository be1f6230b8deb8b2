"""What a runtime compiles at its first start, kept per user, so that the next start is faster.

OpenVINO writes a network it has compiled into a folder, and believes what it finds there: a flipped
bit in it would be a wrong picture. So each network has a folder of its own here, named by the hash
of all that it depends on and sealed by the hash of every file. A folder appears under its name only
when it is complete; one whose seal doesn't hold is thrown away. Without a usable cache, everything
runs as well, and starts slower.
"""

from __future__ import annotations

import hashlib
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
from agsr.system.cache_dir import cache_folder, check_private, make_private

_T = TypeVar("_T")

MOST = 16
"""Networks that are kept, some 2 MB each; what was not used for longest makes room."""

FORMAT = "agsr-compiled-1"
"""Value of the ``format`` entry in a seal."""

_SEAL, _PART = "seal.json", ".part-"
_DAY = 86_400  # seconds

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CompiledEntry:
    """A compiled network in the cache, for ``agsr cache list``."""

    name: str
    """Hash of all that it depends on."""
    size: int
    """Bytes."""
    sound: bool
    """Whether it is complete and as it was written."""
    facts: dict[str, Any]
    """What it depends on; empty if that can't be read."""


class CompiledCache:
    """A folder of compiled networks.

    Args:
        folder: Where; None means ``$AGSR_CACHE`` or the user's cache folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = (folder or cache_folder()) / "compiled"

    def get(self, facts: Mapping[str, Any], load: Callable[[Path | None], _T]) -> _T:
        """Load a network from the cache, or compile it and keep what was compiled.

        Args:
            facts: All that it depends on, for JSON.
            load: Loads it with a folder to compile into or from; None to do without.

        Raises:
            AgsrError: What ``load`` raises without a cache.
        """
        home = self.folder / _digest(facts)
        try:
            make_private(self.folder)
            if _is_sealed(home):
                _log.info("compiled before: %s", home)
                os.utime(home)
                return load(home)
            part = Path(tempfile.mkdtemp(prefix=_PART, dir=self.folder))
        except (AgsrError, OSError) as error:
            _log.info("nothing is kept of what is compiled: %s", error)
            return load(None)
        try:
            return self._compiled(home, part, facts, load)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def entries(self) -> Iterator[CompiledEntry]:
        """What is in the cache, sound or not."""
        for home in sorted(self.folder.glob("[!.]*")):
            files = [path for path in home.glob("*") if path.name != _SEAL]
            yield CompiledEntry(
                name=home.name,
                size=sum(path.stat().st_size for path in files),
                sound=_is_sealed(home),
                facts=_facts(home),
            )

    def clear(self) -> int:
        """Remove everything; returns the bytes that were freed."""
        freed = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        if self.folder.is_dir():
            shutil.rmtree(self.folder)
        return freed

    def _compiled(
        self, home: Path, part: Path, facts: Mapping[str, Any], load: Callable[[Path | None], _T]
    ) -> _T:
        """Compile into a folder that nobody else knows, and give it its name if all went well."""
        try:
            loaded = load(part)
        except AgsrError:
            return load(None)  # whether the folder was the reason shows here
        try:
            _seal(part, facts)
            if not _is_sealed(home):  # nobody was faster
                shutil.rmtree(home, ignore_errors=True)
                part.replace(home)
                self._make_room()
        except OSError as error:  # another process came between, or the disk is full
            _log.info("%s: not kept: %s", home, error)
        return loaded

    def _make_room(self) -> None:
        homes = sorted(self.folder.glob("[!.]*"), key=lambda path: path.stat().st_mtime)
        for home in homes[:-MOST]:
            shutil.rmtree(home, ignore_errors=True)
        for part in self.folder.glob(f"{_PART}*"):
            if time.time() - part.stat().st_mtime > _DAY:  # no start takes that long: it was killed
                shutil.rmtree(part, ignore_errors=True)


def _digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _hashes(home: Path) -> dict[str, str]:
    """SHA-256 of every file but the seal."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(home.iterdir())
        if path.name != _SEAL
    }


def _seal(home: Path, facts: Mapping[str, Any]) -> None:
    files = _hashes(home)
    if not files:
        raise FileNotFoundError(2, "the runtime has kept nothing", str(home))
    content = {"format": FORMAT, "facts": facts, "files": files}
    (home / _SEAL).write_text(json.dumps(content, indent=1))


def _is_sealed(home: Path) -> bool:
    """Whether every file is there, as it was written, in a folder of ours."""
    seal = _read_seal(home)
    try:
        check_private(home)
        return seal.get("format") == FORMAT and seal.get("files") == _hashes(home)
    except (BackendError, OSError):
        return False


def _facts(home: Path) -> dict[str, Any]:
    facts = _read_seal(home).get("facts")
    return facts if isinstance(facts, dict) else {}


def _read_seal(home: Path) -> dict[str, Any]:
    """The seal's content; empty if it can't be understood."""
    try:
        content = json.loads((home / _SEAL).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
