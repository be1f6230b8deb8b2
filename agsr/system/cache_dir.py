"""Where files that can be made or fetched again are kept: one folder per user."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from agsr.errors import BackendError

CACHE_VARIABLE = "AGSR_CACHE"
"""Environment variable that names the cache folder."""


def cache_folder() -> Path:
    """Return the folder that ``$AGSR_CACHE`` names, else the platform's; it may not exist yet.

    A user without a home folder, as in containers, gets one among the temporary files.
    """
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    import platformdirs  # not needed where the variable is set

    try:
        return Path(platformdirs.user_cache_dir("agsr", appauthor=False))
    except RuntimeError:
        import tempfile

        return Path(tempfile.gettempdir(), f"agsr-{os.getuid()}")


def make_private(folder: Path) -> None:
    """Make a folder for compiled code, which nobody else may write to.

    Raises:
        BackendError: It can't be made, or see `check_private`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise BackendError(
            f"{folder}: can't be made: {error.strerror}; name another by {CACHE_VARIABLE}"
        ) from None
    check_private(folder)


def check_private(folder: Path) -> None:
    """Make sure that nobody else has written what is in a folder, if it is there.

    Raises:
        BackendError: It is somebody else's, or others can write into it.
    """
    if os.name != "posix" or not folder.exists():
        return
    state = folder.stat()
    if state.st_uid != os.getuid() or state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise BackendError(
            f"{folder} belongs to, or can be written by, somebody else; what is compiled is code "
            f"and is run from a private folder only: name another by {CACHE_VARIABLE}"
        )
