"""Whole files from and to a server: one request each, and results that appear only when complete.

Object stores show an object when its upload is complete, so a result is one PUT. Servers of SFTP
show partial files, so a result has a hidden name there until it is complete.
"""

from __future__ import annotations

import errno
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from agsr.store.address import Address
from agsr.store.filesystems import filesystem, path_of
from agsr.store.retry import requested, writing_to


def read_object(address: Address) -> bytes:
    """Read a file.

    Raises:
        OSError: It is missing, or can't be read.
        MissingDependencyError: The package for its scheme is not installed.
    """

    def read() -> bytes:
        system = filesystem(address)
        return bytes(system.cat_file(path_of(address, system)))

    return requested(address, read)


@contextmanager
def complete_object(address: Address) -> Iterator[Path]:
    """Yield a temporary local file; upload it if the block succeeds, replacing any other.

    Raises:
        OSError: It can't be written.
    """
    if not address.is_writable:
        raise OSError(errno.EROFS, f"{address.scheme}:// is only read", str(address))
    with tempfile.TemporaryDirectory(prefix="agsr-") as folder:
        temporary = Path(folder) / f"result{address.suffix}"
        yield temporary
        requested(address, lambda: _put(address, temporary))


def fetch_object(address: Address, target: Path) -> None:
    """Copy a file to a local one, in parts.

    Raises:
        OSError: It is missing, or can't be read or written.
    """

    def fetch() -> None:
        system = filesystem(address)
        with writing_to(target):
            system.get_file(path_of(address, system), str(target))

    requested(address, fetch)


def _put(address: Address, source: Path) -> None:
    system = filesystem(address)
    target = path_of(address, system)
    if address.scheme == "sftp":
        _put_by_sftp(system.ftp, str(source), PurePosixPath(target))
    elif address.scheme == "az":
        system.put_file(str(source), target, overwrite=True)
    else:
        system.put_file(str(source), target)


def _put_by_sftp(server: Any, source: str, target: PurePosixPath) -> None:
    part = str(target.parent / f".agsr-{secrets.token_hex(8)}.part")
    try:
        try:
            server.put(source, part)
        except FileNotFoundError:
            _make_folders(server, target.parent)
            server.put(source, part)
        server.posix_rename(part, str(target))
    except BaseException:
        with suppress(Exception):
            server.remove(part)
        raise


def _make_folders(server: Any, folder: PurePosixPath) -> None:
    for parent in (*reversed(folder.parents), folder):
        with suppress(OSError):  # it is there
            server.mkdir(str(parent))
