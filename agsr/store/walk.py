"""Find all files below an address; a folder that can't be read is an error, not an empty one.

Object stores list everything below a name at once. SFTP lists folder by folder: fsspec's own walk
passes over folders that fail, so they are listed here, each with its own attempts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from agsr.store.address import Address
from agsr.store.filesystems import filesystem, path_of
from agsr.store.retry import requested

Facts = dict[str, Any]
"""What a server reports about a file: ``size``, and times or versions by the library's names."""


def facts_of(address: Address) -> Facts:
    """Return what the server reports about a file or folder; links are followed.

    Raises:
        OSError: It is missing, or can't be read.
    """

    def ask() -> Facts:
        system = filesystem(address)
        return dict(system.info(path_of(address, system)))

    return requested(address, ask)


def files_below(folder: Address) -> Iterator[tuple[str, Facts]]:
    """Yield the name below a folder and the facts of each file; a file is below itself, as ''.

    Links to files are files; links to folders are not followed, as in local folders.

    Raises:
        OSError: A folder can't be listed.
    """
    if folder.scheme == "sftp":
        facts = facts_of(folder)
        yield from _walked(folder, "") if facts["type"] == "directory" else [("", facts)]
        return
    yield from requested(folder, lambda: _found(folder))


def _found(folder: Address) -> list[tuple[str, Facts]]:
    system = filesystem(folder)
    root = path_of(folder, system).rstrip("/")
    return [
        (name[len(root) :].strip("/"), facts)
        for name, facts in system.find(root, detail=True).items()
        if facts["type"] == "file" and not name.endswith("/")
    ]


def _walked(folder: Address, below: str) -> Iterator[tuple[str, Facts]]:
    for facts in _listed(folder):
        name = facts["name"].rpartition("/")[2]
        path, item = f"{below}{name}", folder / name
        if facts["type"] == "directory":
            with suppress(FileNotFoundError):  # removed since its folder was listed
                yield from _walked(item, f"{path}/")
        elif facts["type"] == "file":
            yield path, facts
        else:
            with suppress(FileNotFoundError):  # a link to nothing
                found = facts_of(item)
                if found["type"] == "file":
                    yield path, found


def _listed(folder: Address) -> list[Facts]:
    def ask() -> list[Facts]:
        system = filesystem(folder)
        return list(system.ls(path_of(folder, system), detail=True))

    return requested(folder, ask)
