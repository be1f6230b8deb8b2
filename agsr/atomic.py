"""Files that appear under their name only when they are complete."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def complete_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` if the block succeeds.

    An existing file is replaced only then. If the block or the rename fails, nothing is left.
    Missing parent folders are made.

    Raises:
        OSError: The folder can't be written, or ``path`` is a folder.
    """
    temporary = _begin(path)
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Find out before long work whether `complete_file` will be able to begin.

    Raises:
        OSError: The folder can't be written, or ``path`` is a folder.
    """
    _begin(path).unlink()


def _begin(path: Path) -> Path:
    if path.is_dir():
        raise IsADirectoryError(21, "Is a directory", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".agsr-{secrets.token_hex(8)}.part"
    temporary.touch(exist_ok=False)
    return temporary


def _flush(path: Path) -> None:
    """Force the content to disk, so that a crash can't leave a renamed but empty file."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())
