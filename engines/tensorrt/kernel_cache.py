"""Kernels that TensorRT-RTX compiled for an engine, cached so that the next process starts faster.

One file per engine, GPU and version, beside the engines of `agsr.engines.tensorrt.engine_cache`: a
line with the SHA-256 of the rest, then what the runtime serialized. A file that is damaged, or lies
where somebody else could have written it, is ignored; without a usable cache kernels are compiled
again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from agsr.errors import BackendError
from agsr.system.atomic_file import complete_file
from agsr.system.cache_dir import check_private, make_private

MOST = 32
"""Files that are cached; the one that was unused for longest makes room."""

SUFFIX = ".kernels"
"""Ending of their names."""

_log = logging.getLogger(__name__)


class KernelFile:
    """The kernels of one engine.

    Args:
        folder: Folder of the cache.
        facts: All that the kernels depend on, for JSON.
    """

    def __init__(self, folder: Path, facts: Mapping[str, str]) -> None:
        name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        self.path = folder / (name + SUFFIX)

    def load(self) -> bytes:
        """What was saved; empty if there is nothing, or nothing to be trusted."""
        try:
            check_private(self.path.parent)
            seal, _, kernels = self.path.read_bytes().partition(b"\n")
            with suppress(OSError):  # a cache that can't be written to is read all the same
                os.utime(self.path)
        except FileNotFoundError:
            return b""
        except (BackendError, OSError) as error:
            _log.info("no kernels are cached: %s", error)
            return b""
        if seal != _seal(kernels):
            _log.info("%s: damaged, and ignored", self.path)
            return b""
        return kernels

    def save(self, kernels: bytes) -> None:
        """Cache kernels. Where that fails, nothing changes."""
        try:
            make_private(self.path.parent)
            with complete_file(self.path) as temporary:
                temporary.write_bytes(_seal(kernels) + b"\n" + kernels)
            self._make_room()
        except (BackendError, OSError) as error:
            _log.info("kernels are not cached: %s", error)

    def _make_room(self) -> None:
        files = self.path.parent.glob(f"*{SUFFIX}")
        for path in sorted(files, key=lambda path: path.stat().st_mtime)[:-MOST]:
            path.unlink(missing_ok=True)


def _seal(kernels: bytes) -> bytes:
    return hashlib.sha256(kernels).hexdigest().encode()
