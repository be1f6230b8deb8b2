"""Find the files a batch reads: resolve names, patterns and folders to `Input`, each file once.

`agsr.engines.batch.earlier` detects results of earlier runs among them.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from agsr.engines.batch.found import Input, Skipped, is_ignored_folder
from agsr.image.decode import READABLE
from agsr.image.unsupported import ENDINGS
from agsr.store.address import Address, Location
from agsr.store.locations import absolute
from agsr.video.formats import SEGMENTS_ENDING

if TYPE_CHECKING:
    from agsr.store.listing import Listings

_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r"})
"""Files that operating systems create in folders, in lower case."""

_SYSTEM_FILE = "a system file by its name, not an image"


def find(
    sources: Sequence[Location],
    recursive: bool,
    output: Location | None,
    wanted: frozenset[str] = READABLE,
    on_unsupported: Callable[[Location], None] = lambda _: None,
    on_skipped: Callable[[Skipped], None] = lambda _: None,
    listings: Listings | None = None,
) -> list[Input]:
    """Resolve sources to files, each once, in the order of ``sources`` and sorted within folders.

    Args:
        sources: Files, folders, and patterns like ``*.png`` (a local name that exists is not a
            pattern).
        recursive: Search folders and their subfolders, except hidden and linked ones, ``output``
            and the segments of an interrupted video.
        output: Folder for the results.
        wanted: File name endings to read from folders.
        on_unsupported: Called with each image in the folders whose format is not supported.
        on_skipped: Called with every other file with a wanted ending that is skipped: system files
            among several sources, hidden files in folders, links to other inputs.
        listings: Lists folders of servers.
    """
    real, first, others = RealPaths(), dict[str, Input](), dict[str, Location]()
    search = _Search(
        real, wanted, lambda path: others.setdefault(real(path), path), on_skipped, listings
    )
    for source in sources:
        if len(sources) > 1 and _is_system_file(source):
            on_skipped(Skipped(source, _SYSTEM_FILE, named=True))
            continue
        for found in _resolved(source, recursive, output, search):
            known = first.setdefault(real(found.path), found)
            if known is not found and not _is_same(known.path, found.path):
                reason = f"the same file as {known.path}"
                on_skipped(Skipped(found.path, reason, found.below is None, linked=True))
    for other in others.values():
        on_unsupported(other)
    return list(first.values())


class RealPaths:
    """Resolve links in paths; unlike `Path.resolve`, link loops are returned unchanged."""

    def __init__(self) -> None:
        self._folder = cache(os.path.realpath)

    def __call__(self, path: Location) -> str:
        """Return the real path as text; each folder is resolved once. Addresses have no links."""
        if isinstance(path, Address):
            return path.url
        folder, name = os.path.split(path)
        # Path.is_symlink raises for names that are too long.
        if name in ("", ".", "..") or os.path.islink(path):  # noqa: PTH114
            return os.path.realpath(path)
        return os.path.join(self._folder(folder), name)  # noqa: PTH118  # thousands of them


class _Search(NamedTuple):
    """Parameters of `find`."""

    real: RealPaths
    wanted: frozenset[str]
    on_unsupported: Callable[[Location], object]
    on_skipped: Callable[[Skipped], object]
    listings: Listings | None


def _resolved(
    path: Location, recursive: bool, output: Location | None, search: _Search
) -> Iterator[Input]:
    if isinstance(path, Address):
        found = list(_remote(path, recursive, output, search))
    elif path.is_dir():
        if not recursive:
            problem = f"{path}: a folder; add -r to upscale the images in it"
            yield Input(path, problem=problem, is_request=True)
            return
        found = list(_images(path, output, search))
    elif glob.has_magic(str(path)) and not os.path.lexists(path):
        found = [Input(name, Path()) for name in _matching(path, search.wanted)]
    else:
        found = [Input(path)]
    if not found:
        endings = " *".join(sorted(READABLE))
        problem = f"{path}: no image in it; expected names like *{endings}"
        found = [Input(path, problem=problem)]
    yield from found


def _remote(
    source: Address, recursive: bool, output: Location | None, search: _Search
) -> Iterator[Input]:
    from agsr.engines.batch.remote_inputs import remote_inputs  # local files need none of it
    from agsr.store.listing import Listings

    listings, reports = search.listings or Listings(), (search.on_unsupported, search.on_skipped)
    return remote_inputs(source, recursive, output, search.wanted, listings, *reports)


def _matching(pattern: Path, wanted: frozenset[str]) -> list[Path]:
    """Return the files that match a pattern; one without an ending matches wanted endings only."""
    literal = next(n for n, part in enumerate(pattern.parts) if glob.has_magic(part))
    base, rest = Path(*pattern.parts[:literal]), Path(*pattern.parts[literal:])
    dotted = any(part.startswith(".") for part in rest.parts)
    return [
        file
        for file in sorted(base.glob(str(rest)))
        if file.is_file()
        and (bool(pattern.suffix) or file.suffix.lower() in wanted)
        and (dotted or not _is_hidden(file.relative_to(base)))
        and not file.parent.name.endswith(SEGMENTS_ENDING)
    ]


def _images(folder: Path, output: Location | None, search: _Search) -> Iterator[Input]:
    results = os.path.realpath(output) if isinstance(output, Path) else None
    if results == os.path.realpath(folder):
        results = None
    failed: list[OSError] = []
    for name, folders, files in os.walk(folder, onerror=failed.append):
        here = Path(name)
        folders[:] = sorted(
            f
            for f in folders
            if not is_ignored_folder(f) and (not results or search.real(here / f) != results)
        )
        below = here.relative_to(folder)
        for file in sorted(files):
            ending = os.path.splitext(file)[1].lower()  # noqa: PTH122  # thousands of them
            if file.startswith("."):
                if ending in search.wanted:
                    search.on_skipped(Skipped(here / file, "hidden", named=False))
                continue
            if ending in search.wanted:
                yield Input(here / file, below)
            elif ending in ENDINGS:
                search.on_unsupported(here / file)
    for error in failed:
        problem = f"{error.filename}: can't be read: {error.strerror}"
        yield Input(Path(error.filename), problem=problem)


def _is_same(a: Location, b: Location) -> bool:
    """Return True if two paths differ in spelling only."""
    return absolute(a) == absolute(b)


def _is_system_file(path: Location) -> bool:
    """Return True for AppleDouble files and thumbnail caches, which have image endings."""
    return path.name.startswith("._") or path.name.lower() in _SYSTEM_FILES


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
