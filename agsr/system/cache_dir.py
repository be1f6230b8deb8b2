"""The user's cache folder, for files that can be regenerated or downloaded again."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from agsr.errors import BackendError

CACHE_VARIABLE = "AGSR_CACHE"
"""Environment variable that names the cache folder."""


def cache_folder() -> Path:
    """Return ``$AGSR_CACHE``, else the platform's cache folder; it may not exist yet.

    Without a home folder, as in containers, it is a folder per user among the temporary files.
    """
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    import platformdirs  # not needed if the variable is set

    try:
        return Path(platformdirs.user_cache_dir("agsr", appauthor=False))
    except RuntimeError:
        import tempfile

        return Path(tempfile.gettempdir(), f"agsr-{os.getuid()}")


def make_private(folder: Path) -> None:
    """Create a folder for compiled code that only this user can write to.

    Raises:
        BackendError: It can't be created, or is not private; see `check_private`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise BackendError(
            f"{folder}: can't be created: {error.strerror}; set {CACHE_VARIABLE} to another folder"
        ) from None
    check_private(folder)


def check_private(folder: Path) -> None:
    """Check that no other user can write to a folder; one that doesn't exist passes.

    Raises:
        BackendError: It belongs to another user, or others can write to it.
    """
    if os.name != "posix" or not folder.exists():
        return
    state = folder.stat()
    if state.st_uid != os.getuid() or state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise BackendError(
            f"{folder} belongs to or is writable by another user; compiled code is loaded only "
            f"from a private folder: set {CACHE_VARIABLE} to another one"
        )
