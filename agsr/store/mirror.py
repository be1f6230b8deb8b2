"""Local copies of folders and files on servers, for what reads them many times: sets and training.

Copies lie in the cache, and are reused while the server lists the same version: ETag or time, and
size. `agsr infer` needs none: it reads each file once.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import shutil
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from agsr.errors import DatasetError
from agsr.store.address import WEB, Address, Location
from agsr.store.locations import exists_locally
from agsr.system.atomic_file import complete_file
from agsr.system.cache_dir import cache_folder
from agsr.system.text import counted

_VERSIONS = "versions.json"
_FACTS = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime")
_CONNECTIONS = 8

_log = logging.getLogger(__name__)


def fetched(location: Location, only: Collection[str] | None = None) -> Path:
    """Return a local path, or the copy of an address; what changed there is copied again.

    Args:
        location: A file or a folder.
        only: Names of folders: other files are not copied.

    Raises:
        DatasetError: It is missing or can't be read, or the disk is too small.
        MissingDependencyError: The package for its scheme is not installed.
    """
    if isinstance(location, Path):
        return location
    try:
        return _mirrored(location, only)
    except OSError as error:
        raise DatasetError(f"{error.filename or location}: {error.strerror}") from None


def _mirrored(address: Address, only: Collection[str] | None) -> Path:
    root = cache_folder() / "store" / hashlib.sha256(address.url.encode()).hexdigest()[:16]
    folder = root / (address.name or address.host.rpartition("@")[2].replace(":", "_"))
    files = _listed(address)
    wanted = {name: facts for name, facts in files.items() if _is_wanted(name, only)}
    if not wanted:
        raise DatasetError(f"{address}: no such file or folder, or it is empty")
    versions = _read(root / _VERSIONS)
    missing = {
        name: size
        for name, (size, version) in wanted.items()
        if version is None
        or versions.get(name) != version
        or not exists_locally(folder / name if name else folder)
    }
    _check_space(root, sum(missing.values()), address)
    if missing:
        _log.warning("%s: copying %s to %s", address, counted(len(missing), "file"), folder)
    try:
        _copy(address, missing, folder, versions, {n: v for n, (_, v) in wanted.items()})
    finally:
        with complete_file(root / _VERSIONS) as temporary:
            temporary.write_text(json.dumps(versions))
    _remove_others(folder, files)
    return folder


def _listed(address: Address) -> dict[str, tuple[int, str | None]]:
    """Return size and version of each file by its name below an address; '' is the address."""
    from agsr.store.walk import facts_of, files_below

    if address.scheme in WEB:
        return {"": (int(facts_of(address).get("size") or 0), None)}
    if not address.is_folder and (facts := facts_of(address))["type"] == "file":
        return {"": (int(facts["size"] or 0), _version(facts))}
    return {
        name: (int(facts["size"] or 0), _version(facts)) for name, facts in files_below(address)
    }


def _version(facts: Mapping[str, Any]) -> str:
    return " ".join(str(facts[name]) for name in ("size", *_FACTS) if facts.get(name) is not None)


def _is_wanted(name: str, only: Collection[str] | None) -> bool:
    parts = name.split("/")
    if ".." in parts:
        return False
    return only is None or bool({part.lower() for part in parts[:-1]} & {o.lower() for o in only})


def _copy(
    address: Address,
    missing: Collection[str],
    folder: Path,
    versions: dict[str, str],
    found: Mapping[str, str | None],
) -> None:
    from agsr.store.transfer import fetch_object

    def copy(name: str) -> None:
        target = folder / name if name else folder
        with complete_file(target) as temporary:
            fetch_object(address / name if name else address, temporary)
        versions[name] = found[name] or ""

    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        list(pool.map(copy, missing))


def _read(file: Path) -> dict[str, str]:
    with suppress(OSError, ValueError):
        found = json.loads(file.read_text())
        return found if isinstance(found, dict) else {}
    return {}


def _check_space(root: Path, needed: int, address: Address) -> None:
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    if needed > free:
        reason = f"{needed} bytes to copy, and {free} are free at {root}; set AGSR_CACHE"
        raise OSError(errno.ENOSPC, reason, str(address))


def _remove_others(folder: Path, files: Collection[str]) -> None:
    """Remove copies of files that the server no longer has."""
    for path in folder.rglob("*") if folder.is_dir() else ():
        if path.is_file() and path.relative_to(folder).as_posix() not in files:
            path.unlink(missing_ok=True)
