"""What planning, reading and writing need of a location: a local path, or an address.

Nothing here but `read_bytes` and `complete` sends a request for a single file of a server.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path

from agsr.store.address import Address, Location
from agsr.system.atomic_file import check_writable as check_local
from agsr.system.atomic_file import complete_file, existing_folder
from agsr.system.atomic_file import remove_abandoned as remove_abandoned_locally


def read_bytes(location: Location) -> bytes:
    """Read a whole file.

    Raises:
        OSError: It is missing, or can't be read.
    """
    if isinstance(location, Path):
        return location.read_bytes()
    from agsr.store.transfer import read_object

    return read_object(location)


def complete(location: Location) -> AbstractContextManager[Path]:
    """Yield a temporary file that becomes ``location`` if the block succeeds; see `complete_file`.

    Raises:
        OSError: It can't be written.
    """
    if isinstance(location, Path):
        return complete_file(location)
    from agsr.store.transfer import complete_object

    return complete_object(location)


def check_writable(location: Location) -> None:
    """Check before long work that `complete` can start.

    Raises:
        OSError: It can't, as far as can be known without a request.
        MissingDependencyError: A package for the address is not installed.
    """
    if isinstance(location, Address):
        from agsr.store.filesystems import require_drivers

        require_drivers(location)
    check_local(location if isinstance(location, Path) else _work_file())


def free_space(location: Location) -> int:
    """Return the free bytes where a result is written before it is complete."""
    local = location if isinstance(location, Path) else _work_file()
    return shutil.disk_usage(existing_folder(local)).free


def remove_abandoned(folder: Location, *, again: bool = False) -> None:
    """Remove what killed processes have left in a local folder."""
    if isinstance(folder, Path):
        remove_abandoned_locally(folder, again=again)


def is_folder(location: Location) -> bool:
    """Return True for a local folder that exists, or an address that ends in a slash."""
    return location.is_dir() if isinstance(location, Path) else location.is_folder


def may_exist(location: Location) -> bool:
    """Return False for a local path that doesn't exist; of an address it is not known."""
    try:
        return isinstance(location, Address) or location.exists()
    except OSError:  # a name that is too long
        return False


def exists_locally(location: Location) -> bool:
    """Return True for a local path that exists."""
    return isinstance(location, Path) and location.exists()


def local(location: Location) -> Path:
    """Return a local path, where plans have no address.

    Raises:
        ValueError: It is an address.
    """
    if isinstance(location, Address):
        raise ValueError(f"{location}: not a local path")
    return location


def is_same_file(first: Location | None, second: Location | None) -> bool:
    """Return True if two places are one file by any name, or one address.

    Raises:
        OSError: A name is too long.
    """
    if isinstance(first, Path) and isinstance(second, Path):
        return first.exists() and second.exists() and first.samefile(second)
    return first is not None and first == second


def is_local_file(location: Location) -> bool:
    """Return True for a regular local file: it can be looked at before it is read."""
    return isinstance(location, Path) and os.path.isfile(location)  # noqa: PTH113  # any name


def absolute(location: Location) -> str:
    """Return a path from a root; an address is below its scheme."""
    if isinstance(location, Address):
        return f"{os.sep}{location.scheme}/{location.host}/{location.key}".rstrip("/")
    return os.path.abspath(location)  # noqa: PTH100  # keeps links


def _work_file() -> Path:
    return Path(tempfile.gettempdir()) / "result"
