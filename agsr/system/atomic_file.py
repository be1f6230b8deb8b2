"""Atomic files and folders: they appear under their name only when they are complete.

Until then they are ``.agsr-*.part`` (folders ``.agsr-*.folder``) beside it, locked by the writing
process. The lock ends with the process, so the next process that writes to the folder can remove
the leftovers of a killed one without touching files that are being written.
`agsr.system.destination` decides which attributes of a replaced file the new one gets.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from agsr.system.destination import Replaced, check_links, final_path

_PART = re.compile(r"\.agsr-[0-9a-f]{16}\.part")
_FOLDER = re.compile(r"\.agsr-[0-9a-f]{16}\.folder")
_DAY = 86_400  # seconds


@contextmanager
def complete_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` if the block succeeds.

    An existing file is replaced only then. If the block or the rename fails, no file remains.
    Missing parent folders are created. Links are followed, so the file that a link points to is
    replaced, and the new file gets the mode and owner of the old one. A path that is not a regular
    file, such as ``/dev/null`` or a pipe, is written to instead of replaced.

    Raises:
        OSError: The folder can't be written, ``path`` is a folder or write-protected, a link is
            broken or untrusted, or the disk is full. It names ``path`` if the system names no file.

    >>> with tempfile.TemporaryDirectory() as folder, complete_file(Path(folder, "a.txt")) as part:
    ...     _ = part.write_text("complete")
    ...     Path(folder, "a.txt").exists()
    False
    """
    _check_no_folder(path)
    check_links(path)
    if _is_stream(path):
        with _named(path), _streamed(path) as temporary:
            yield temporary
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    final = final_path(path)
    replaced = Replaced.at(final)
    with _named(path), _part(final.parent) as temporary:
        if replaced is not None:
            temporary.chmod(0o600)  # readable only by those who could read the old file
        yield temporary
        _flush(temporary)
        if replaced is not None:
            replaced.transfer_to(temporary)
        temporary.replace(final)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Add a result's name to system errors that have none, or that of a temporary file."""
    try:
        yield
    except OSError as error:
        named = error.filename
        temporary = isinstance(named, str) and _PART.fullmatch(Path(named).name)
        if error.errno is not None and (named is None or temporary):
            with suppress(AttributeError):  # the errors of PyAV are OSErrors with a fixed name
                error.filename = str(path)
        raise


@contextmanager
def complete_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; rename it to ``path`` if the block succeeds.

    If the block or the rename fails, no folder remains. Missing parent folders are created.

    Raises:
        OSError: The parent can't be written, or ``path`` exists and is not an empty folder.
    """
    with temporary_folder(path.parent) as temporary:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _flush(file)
        temporary.rename(path)


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder that is removed at the end, or by a later process if this one is killed.

    Missing parent folders are created.

    Raises:
        OSError: The parent can't be written.
    """
    parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(parent)
    temporary, descriptor = _create_folder(parent)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


def check_writable(path: Path) -> None:
    """Check before long work that `complete_file` can start, without creating folders.

    Raises:
        OSError: The folder can't be written, ``path`` is a folder, write-protected or too long, or
            a link is broken or untrusted.
    """
    _check_no_folder(path)
    with suppress(FileNotFoundError, NotADirectoryError):
        path.lstat()  # raises if a name is too long
    check_links(path)
    if _is_stream(path):
        return
    final = final_path(path)
    Replaced.at(final)
    folder = existing_folder(final)
    if not folder.is_dir():
        raise NotADirectoryError(20, "Not a directory", str(folder))
    with _part(folder):
        pass


def check_new_folder(path: Path) -> None:
    """Check before long work that `complete_folder` can start, without creating folders.

    Raises:
        OSError: The parent can't be written, or ``path`` exists.
    """
    if path.exists() or path.is_symlink():
        raise FileExistsError(17, "File exists", str(path))
    check_writable(path)


def existing_folder(path: Path) -> Path:
    """Return the lowest existing folder above a path, links followed; it may be a file.

    Raises:
        OSError: A link is broken.
    """
    return next(parent for parent in final_path(path).parents if parent.exists())


def _check_no_folder(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(21, "Is a directory", str(path))


_OPEN_FILES = re.compile(r"/dev/[^/]+|/dev/fd/\d+|/proc/(self|\d+)/fd/\d+")
"""Devices, and Linux's names for a process's open files."""


def _is_stream(path: Path) -> bool:
    """Return True for devices and pipes, which can be written to but not replaced."""
    if _OPEN_FILES.fullmatch(str(path.absolute())):
        return path.exists()  # may be a file opened by the caller's shell
    return path.exists() and not path.is_file() and not path.is_dir()


@contextmanager
def _streamed(path: Path) -> Iterator[Path]:
    """Yield a temporary file; copy its content to a device or pipe at the end."""
    with tempfile.TemporaryDirectory(prefix="agsr-") as folder:
        temporary = Path(folder) / path.name
        yield temporary
        with temporary.open("rb") as source, path.open("ab", buffering=0) as sink:
            shutil.copyfileobj(source, sink)


def remove_abandoned(folder: Path, *, again: bool = False) -> None:
    """Remove leftovers of killed processes from a folder, once per process.

    Args:
        folder: The folder.
        again: Search it even if it was searched before: a child process was killed meanwhile.
    """
    if again:
        _remove_abandoned.cache_clear()
    _remove_abandoned(folder.absolute())


@cache
def _remove_abandoned(folder: Path) -> None:
    with suppress(OSError):  # the folder can't be listed
        for path in list(folder.iterdir()):
            with suppress(OSError):  # already removed, or another user's
                if _PART.fullmatch(path.name):
                    _remove_if_abandoned(path)
                elif _FOLDER.fullmatch(path.name):
                    _remove_folder_if_abandoned(path)


@contextmanager
def _part(folder: Path) -> Iterator[Path]:
    """Yield a locked temporary file in a folder; remove it at the end unless it was renamed."""
    remove_abandoned(folder)
    temporary, descriptor = _create(folder)
    try:
        yield temporary
    finally:
        if descriptor is not None:
            os.close(descriptor)
        temporary.unlink(missing_ok=True)


if sys.platform == "win32":  # open files can't be renamed there, so age decides

    def _create(folder: Path) -> tuple[Path, int | None]:
        temporary = _name(folder, "part")
        temporary.touch(exist_ok=False)
        return temporary, None

    def _create_folder(parent: Path) -> tuple[Path, int | None]:
        temporary = _name(parent, "folder")
        temporary.mkdir()
        return temporary, None

    def _remove_if_abandoned(path: Path) -> None:
        if time.time() - path.stat().st_mtime > _DAY:
            path.unlink()

    def _remove_folder_if_abandoned(path: Path) -> None:
        if time.time() - path.stat().st_mtime > _DAY:
            shutil.rmtree(path)

else:
    import fcntl

    def _create(folder: Path) -> tuple[Path, int | None]:
        """Create a file; return it with the descriptor that holds its lock."""
        while True:
            temporary = _name(folder, "part")
            descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            with suppress(OSError):  # some network drives have no locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                return temporary, descriptor
            os.close(descriptor)  # another process removed it just before it was locked

    def _remove_if_abandoned(path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        finally:
            os.close(descriptor)

    def _create_folder(parent: Path) -> tuple[Path, int | None]:
        """Create a folder; return it with the descriptor that holds its lock."""
        while True:
            temporary = _name(parent, "folder")
            temporary.mkdir()
            try:
                descriptor = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            except FileNotFoundError:
                continue  # another process removed it before it was locked
            with suppress(OSError):  # some network drives have no locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(temporary.stat(), os.fstat(descriptor)):
                    return temporary, descriptor
            os.close(descriptor)

    def _remove_folder_if_abandoned(path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path)
        finally:
            os.close(descriptor)


def _name(folder: Path, kind: str) -> Path:
    return folder / f".agsr-{secrets.token_hex(8)}.{kind}"


def _flush(path: Path) -> None:
    """Flush the content to disk, so that a crash can't leave a renamed but empty file."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())
