"""Assembled files in the user's cache, so that runtimes can load them; made at first use.

A file is named by a hash of what it is made of and by the hash of its content, which is checked
whenever the file is used. Without a writable cache it is made in a temporary folder that the
process removes when it ends.
"""

from __future__ import annotations

import atexit
import glob
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from agsr.errors import BackendError
from agsr.system.atomic_file import complete_file
from agsr.system.cache_dir import cache_folder, check_private, make_private
from agsr.system.cache_files import CacheEntry, digest, evict

MAX_ENTRIES = 64
"""Files in the cache, up to 1.7 MB each; those unused for longest are removed."""

_FOLDER, _ENTRIES = "assembled", "[!.]*.*.*.*"

_log = logging.getLogger(__name__)


def assembled_file(name: str, facts: Mapping[str, Any], make: Callable[[], bytes]) -> Path:
    """Return a file from the cache, or make it.

    Args:
        name: Name of the file, for the user: ``psnr-8.onnx``.
        facts: All that it depends on, for JSON.
        make: Returns its content.

    Raises:
        AgsrError: From ``make``.
        OSError: There is no temporary folder either.
    """
    folder = assembled_folder()
    prefix = f"{Path(name).stem}.{digest(facts)[:16]}"
    found = _reusable(folder, prefix)
    if found is not None:
        return found
    content = make()
    file = f"{prefix}.{_hash(content)}{Path(name).suffix}"
    try:
        make_private(folder)
        path = _written(folder / file, content)
        evict(folder.glob(_ENTRIES), MAX_ENTRIES)
    except (BackendError, OSError) as error:
        _log.info("%s is made again at each start: %s", name, error)
        return _written(_temporary_folder() / file, content)
    _log.info("made: %s", path)
    return path


def assembled_folder() -> Path:
    """Return the folder of assembled files; it may not exist."""
    return cache_folder().absolute() / _FOLDER


def assembled_entries() -> Iterator[CacheEntry]:
    """List what is in the cache, unchanged or not."""
    for path in sorted(assembled_folder().glob(_ENTRIES)):
        yield CacheEntry(name=path.name, size=path.stat().st_size, sound=_is_unchanged(path))


def _reusable(folder: Path, prefix: str) -> Path | None:
    """Return a whole, unchanged file in a folder that only this user writes; None if none is."""
    try:
        check_private(folder)
        for path in folder.glob(f"{glob.escape(prefix)}.*"):
            if _is_unchanged(path):
                with suppress(OSError):  # a cache that can't be written to
                    os.utime(path)
                return path
    except (BackendError, OSError) as error:
        _log.info("the cache is not used: %s", error)
    return None


def _is_unchanged(path: Path) -> bool:
    return path.suffixes[-2][1:] == _hash(path.read_bytes())


def _written(path: Path, content: bytes) -> Path:
    with complete_file(path) as temporary:
        temporary.write_bytes(content)
    return path


@cache
def _temporary_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="agsr-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]
