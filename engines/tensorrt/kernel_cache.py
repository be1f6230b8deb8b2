"""Kernels that TensorRT-RTX compiled for an engine, cached so that the next process starts faster.

One file per engine, GPU and version, beside the engines of `agsr.engines.tensorrt.engine_cache`: a
line with the SHA-256 of the rest, then the kernels as the runtime serialized them. A file is
ignored if it is damaged, or if somebody else could have written it; without a usable cache, kernels
are compiled again.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from agsr.errors import BackendError
from agsr.system import cache_files
from agsr.system.atomic_file import complete_file
from agsr.system.cache_dir import check_private, make_private

MAX_FILES = 32
"""Files in the cache; the one unused for longest is evicted."""

SUFFIX = ".kernels"
"""Suffix of their names."""

_log = logging.getLogger(__name__)


class KernelFile:
    """The kernels of one engine.

    Args:
        folder: Folder of the cache.
        facts: All that the kernels depend on, for JSON.
    """

    def __init__(self, folder: Path, facts: Mapping[str, str]) -> None:
        self.path = folder / (cache_files.digest(facts) + SUFFIX)

    def load(self) -> bytes:
        """Return the saved kernels; empty if there are none or they can't be trusted."""
        try:
            check_private(self.path.parent)
            checksum, _, kernels = self.path.read_bytes().partition(b"\n")
            with suppress(OSError):  # a read-only cache is still read
                os.utime(self.path)
        except FileNotFoundError:
            return b""
        except (BackendError, OSError) as error:
            _log.info("no kernels are cached: %s", error)
            return b""
        if checksum != _checksum(kernels):
            _log.info("%s: damaged; ignored", self.path)
            return b""
        return kernels

    def save(self, kernels: bytes) -> None:
        """Cache kernels; if that fails, the cache stays as it is."""
        try:
            make_private(self.path.parent)
            with complete_file(self.path) as temporary:
                temporary.write_bytes(_checksum(kernels) + b"\n" + kernels)
            cache_files.evict(self.path.parent.glob(f"*{SUFFIX}"), MAX_FILES)
        except (BackendError, OSError) as error:
            _log.info("kernels are not cached: %s", error)


def _checksum(kernels: bytes) -> bytes:
    return hashlib.sha256(kernels).hexdigest().encode()
