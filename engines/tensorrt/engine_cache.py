"""Cache of built engines, per user; an engine is reused only if all that it depends on is the same.

An engine is code for one GPU, one TensorRT and one ONNX file. Its name is the hash of all of these;
a sidecar repeats the identity and holds the engine's SHA-256. An engine that does not match its
sidecar (stale, foreign, truncated or changed) is rebuilt, never run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from agsr._version import __version__
from agsr.engines.tensorrt.builder import VERSION as BUILDER_VERSION
from agsr.engines.tensorrt.options import BuildOptions, BuildReport
from agsr.engines.tensorrt.signed_int8 import VERSION as INT8_VERSION
from agsr.system import cache_files
from agsr.system.atomic_file import complete_file
from agsr.system.cache_dir import cache_folder, check_private, make_private
from agsr.system.optional_import import require

FORMAT = "agsr-engine-1"
"""Value of the ``format`` key in a sidecar."""

_ENGINE, _SIDECAR, _LOCK = ".engine", ".json", ".lock"


@dataclass(frozen=True, kw_only=True)
class EngineIdentity:
    """Everything that an engine depends on."""

    onnx: str
    """SHA-256 of the ONNX file."""
    options: BuildOptions
    """Profiles and flags."""
    flavour: str
    """``"tensorrt"`` or ``"tensorrt-rtx"``."""
    version: str
    """TensorRT's version."""
    gpu: str
    """Name of the GPU."""
    capability: str
    """Its compute capability, like ``"8.9"``."""
    driver: str
    """Newest CUDA version that the driver supports, like ``"13.0"``."""
    builder: int = BUILDER_VERSION
    """Version of how engines are configured."""
    int8: int = INT8_VERSION
    """Version of how int8 graphs are made signed."""

    def to_json(self) -> str:
        """Canonical JSON: equal identities give equal text."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @property
    def digest(self) -> str:
        """SHA-256 of `to_json`: the engine's name."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class EngineEntry(cache_files.CacheEntry):
    """An engine in the cache."""

    sidecar: dict[str, Any]
    """Content of its sidecar; empty if that can't be read."""


class EngineCache:
    """A folder of engines.

    Args:
        folder: Parent folder; None means ``$AGSR_CACHE`` or the user's cache folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = (folder or cache_folder()) / "engines"

    def get(
        self, identity: EngineIdentity, build: Callable[[], tuple[bytes, BuildReport]]
    ) -> tuple[bytes, dict[str, Any]]:
        """Return the engine of this identity, building it if it is not cached.

        Processes that need the same engine wait for the first of them to build it.

        Returns:
            The engine and the ``report`` of its sidecar.

        Raises:
            BackendError: The folder can't be used, or others could write into it.
            AgsrError: ``build`` fails.
        """
        found = self._load(identity)
        if found is not None:
            return found
        make_private(self.folder)
        filelock = require("filelock", extra="rtx", purpose="The engine cache")
        with filelock.FileLock(self._path(identity, _LOCK)):
            found = self._load(identity)
            if found is None:
                found = self._store(identity, *build())
        return found

    def entries(self) -> Iterator[EngineEntry]:
        """List what is in the cache, intact or not."""
        for path in sorted(self.folder.glob(f"*{_ENGINE}")):
            sidecar = cache_files.read_manifest(path.with_suffix(_SIDECAR))
            content = path.read_bytes()
            sound = sidecar.get("sha256") == hashlib.sha256(content).hexdigest()
            yield EngineEntry(name=path.stem, size=len(content), sound=sound, sidecar=sidecar)

    def clear(self) -> int:
        """Remove every engine; returns the bytes that were freed."""
        return cache_files.clear(self.folder)

    def _load(self, identity: EngineIdentity) -> tuple[bytes, dict[str, Any]] | None:
        """Return the engine if every byte is as it was written for exactly this identity."""
        sidecar = cache_files.read_manifest(self._path(identity, _SIDECAR))
        if sidecar.get("format") != FORMAT or sidecar.get("identity") != identity.to_json():
            return None
        try:
            check_private(self.folder)
            content = self._path(identity, _ENGINE).read_bytes()
        except FileNotFoundError:
            return None
        if hashlib.sha256(content).hexdigest() != sidecar.get("sha256"):
            return None
        report = sidecar.get("report")
        return (content, report) if isinstance(report, dict) else None

    def _store(
        self, identity: EngineIdentity, engine: bytes, report: BuildReport
    ) -> tuple[bytes, dict[str, Any]]:
        facts = json.loads(json.dumps(report.to_dict()))
        sidecar = {
            "format": FORMAT,
            "identity": identity.to_json(),
            "sha256": hashlib.sha256(engine).hexdigest(),
            "built": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "agsr": __version__,
            "report": facts,
        }
        # The sidecar last: without it, an engine does not count.
        self._path(identity, _SIDECAR).unlink(missing_ok=True)
        with complete_file(self._path(identity, _ENGINE)) as temporary:
            temporary.write_bytes(engine)
        with complete_file(self._path(identity, _SIDECAR)) as temporary:
            temporary.write_text(json.dumps(sidecar, indent=1))
        return engine, facts

    def _path(self, identity: EngineIdentity, suffix: str) -> Path:
        return self.folder / (identity.digest + suffix)
