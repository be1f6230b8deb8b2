"""List folders of a server, each once per run: inputs, and results that are there already."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath

from agsr.store.address import WEB, Address


class Listings:
    """Names below folders; a folder is listed once, with all folders below it.

    Names are stored without objects of their own: a million take about 150 MB.
    """

    def __init__(self) -> None:
        self._listed: dict[Address, dict[str, int]] = {}

    def files(self, folder: Address) -> dict[str, int]:
        """Return the size in bytes of each file below a folder, by its key.

        A file is below itself.

        Raises:
            OSError: The folder can't be listed.
            MissingDependencyError: The package for its scheme is not installed.
        """
        if folder not in self._listed:
            self._listed[folder] = _files(folder)
        return self._listed[folder]

    def existing(self, files: Iterable[Address]) -> set[Address]:
        """Return those of the files that exist and are not empty.

        Their common folder is listed, unless a listing already covers it.

        Raises:
            OSError: The folder can't be listed.
        """
        by_server = defaultdict[tuple[str, str], list[Address]](list)
        for file in files:
            by_server[file.scheme, file.host].append(file)
        found = set[Address]()
        for group in by_server.values():
            names = self._covering(_common_folder(group))
            found.update(file for file in group if names.get(file.key))
        return found

    def _covering(self, folder: Address) -> dict[str, int]:
        for above in (folder, *folder.parents):
            if above in self._listed:
                return self._listed[above]
        try:
            return self.files(folder)
        except FileNotFoundError:
            return {}  # SFTP has no folder yet


def _common_folder(files: list[Address]) -> Address:
    keys = {"/" + file.parent.key for file in files}
    common = os.path.commonpath(keys) if len(keys) > 1 else next(iter(keys))
    return Address(files[0].scheme, files[0].host, common.replace(os.sep, "/").strip("/"))


def _files(folder: Address) -> dict[str, int]:
    from agsr.store.walk import files_below  # local files don't need it

    if folder.scheme in WEB:
        raise OSError(1, f"{folder.scheme}:// has no folders; name its files", str(folder))
    return {
        "/".join(filter(None, (folder.key, below))): int(facts["size"] or 0)
        for below, facts in files_below(folder)
    }


def matches(folder: Address, key: str, pattern: str) -> bool:
    """Return True if a key below a folder matches a pattern like ``2026/*.jpg``.

    >>> matches(Address.parse("s3://b/in"), "in/a/b.jpg", "*/*.jpg")
    True
    """
    below = PurePosixPath(key[len(folder.key) :].lstrip("/"))
    parts = PurePosixPath(pattern).parts
    if "**" in parts:
        return _full_match(below.parts, parts)
    return len(below.parts) == len(parts) and below.match(pattern)


def _full_match(names: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    if not parts:
        return not names
    if parts[0] == "**":
        return any(_full_match(names[start:], parts[1:]) for start in range(len(names) + 1))
    one = bool(names) and PurePosixPath(names[0]).match(parts[0])
    return one and _full_match(names[1:], parts[1:])
