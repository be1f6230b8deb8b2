"""Files that appear under their name only when they are complete.

Until then they are ``.agsr-*.part`` beside it, locked by the process that writes them. The lock
ends with the process, however that ends: so what a killed one left is told from what another one is
writing, and removed by the next that writes into the folder.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

_PART = re.compile(r"\.agsr-[0-9a-f]{16}\.part")
_DAY = 86_400  # seconds


@contextmanager
def complete_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` if the block succeeds.

    An existing file is replaced only then. If the block or the rename fails, nothing is left.
    Missing parent folders are made.

    Raises:
        OSError: The folder can't be written, or ``path`` is a folder.
    """
    _check_no_folder(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _part(path.parent) as temporary:
        yield temporary
        _flush(temporary)
        temporary.replace(path)


def check_writable(path: Path) -> None:
    """Find out before long work whether `complete_file` will be able to begin; makes no folder.

    Raises:
        OSError: The folder can't be written, or ``path`` is a folder or too long.
    """
    _check_no_folder(path)
    with suppress(FileNotFoundError, NotADirectoryError):
        path.lstat()  # tells of a name that is too long
    folder = existing_folder(path)
    if not folder.is_dir():
        raise NotADirectoryError(20, "Not a directory", str(folder))
    with _part(folder):
        pass


def existing_folder(path: Path) -> Path:
    """The lowest folder above a path that is there already; it may turn out to be a file."""
    return next(parent for parent in path.parents if parent.exists())


def _check_no_folder(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(21, "Is a directory", str(path))


def remove_abandoned(folder: Path) -> None:
    """Remove what killed processes left in a folder; a process does so once."""
    _remove_abandoned(folder.absolute())


@cache
def _remove_abandoned(folder: Path) -> None:
    with suppress(OSError):  # it can't be listed
        for path in [entry for entry in folder.iterdir() if _PART.fullmatch(entry.name)]:
            with suppress(OSError):  # gone meanwhile, or somebody else's
                _remove_if_abandoned(path)


@contextmanager
def _part(folder: Path) -> Iterator[Path]:
    """A temporary file in a folder, locked; at the end it is gone, unless it was renamed."""
    remove_abandoned(folder)
    temporary, descriptor = _begin(folder)
    try:
        yield temporary
    finally:
        if descriptor is not None:
            os.close(descriptor)
        temporary.unlink(missing_ok=True)


if sys.platform == "win32":  # an open file can't be renamed there, so the age has to do

    def _begin(folder: Path) -> tuple[Path, int | None]:
        temporary = _name(folder)
        temporary.touch(exist_ok=False)
        return temporary, None

    def _remove_if_abandoned(path: Path) -> None:
        if time.time() - path.stat().st_mtime > _DAY:
            path.unlink()

else:
    import fcntl

    def _begin(folder: Path) -> tuple[Path, int | None]:
        """A new file, and the descriptor that holds its lock."""
        while True:
            temporary = _name(folder)
            descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            with suppress(OSError):  # some network drives know no locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                return temporary, descriptor
            os.close(descriptor)  # it was taken for abandoned just before it was locked

    def _remove_if_abandoned(path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        finally:
            os.close(descriptor)


def _name(folder: Path) -> Path:
    return folder / f".agsr-{secrets.token_hex(8)}.part"


def _flush(path: Path) -> None:
    """Force the content to disk, so that a crash can't leave a renamed but empty file."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())
