"""Find the files a batch reads: resolve names, patterns and folders to `Input`, each file once.

`agsr.engines.batch.earlier` detects results of earlier runs among them.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from agsr.image.decode import READABLE
from agsr.image.unsupported import ENDINGS
from agsr.video.formats import SEGMENTS_ENDING

_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r"})
"""Files that operating systems create in folders, in lower case."""

_SYSTEM_FILE = "a system file by its name, not an image"


@dataclass(frozen=True)
class Input:
    """A file to read, or a problem that prevents it."""

    path: Path
    below: Path | None = None
    """Subfolder relative to the folder that was searched; None for a file that was named."""
    problem: str | None = None
    """Why it can't be read."""
    is_request: bool = False
    """Whether the problem is in the request, not in the file."""


class Skipped(NamedTuple):
    """A file that is skipped."""

    path: Path
    reason: str
    named: bool
    """Whether it was named, rather than found in a folder or by a pattern."""
    linked: bool = False
    """Whether it links to another input."""


def find(
    sources: Sequence[Path],
    recursive: bool,
    output: Path | None,
    wanted: frozenset[str] = READABLE,
    on_unsupported: Callable[[Path], None] = lambda _: None,
    on_skipped: Callable[[Skipped], None] = lambda _: None,
) -> list[Input]:
    """Resolve sources to files, each once, in the order of ``sources`` and sorted within folders.

    Args:
        sources: Files, folders, and patterns like ``*.png`` (a name that exists is not a pattern).
        recursive: Search folders and their subfolders, except hidden and linked ones, ``output``
            and the segments of an interrupted video.
        output: Folder for the results.
        wanted: File name endings to read from folders.
        on_unsupported: Called with each image in the folders whose format is not supported.
        on_skipped: Called with every other file with a wanted ending that is skipped: system files
            among several sources, hidden files in folders, links to other inputs.
    """
    real, first, others = RealPaths(), dict[str, Input](), dict[str, Path]()
    search = _Search(real, wanted, lambda path: others.setdefault(real(path), path), on_skipped)
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

    def __call__(self, path: Path) -> str:
        """Return the real path as text; each folder is resolved once."""
        folder, name = os.path.split(path)
        # Path.is_symlink raises for names that are too long.
        if name in ("", ".", "..") or os.path.islink(path):  # noqa: PTH114
            return os.path.realpath(path)
        return os.path.join(self._folder(folder), name)  # noqa: PTH118  # thousands of them


class _Search(NamedTuple):
    """Parameters of `find`."""

    real: RealPaths
    wanted: frozenset[str]
    on_unsupported: Callable[[Path], object]
    on_skipped: Callable[[Skipped], object]


def _resolved(path: Path, recursive: bool, output: Path | None, search: _Search) -> Iterator[Input]:
    if path.is_dir():
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


def _images(folder: Path, output: Path | None, search: _Search) -> Iterator[Input]:
    results = None if output is None else os.path.realpath(output)
    if results == os.path.realpath(folder):
        results = None
    failed: list[OSError] = []
    for name, folders, files in os.walk(folder, onerror=failed.append):
        here = Path(name)
        folders[:] = sorted(
            f
            for f in folders
            if not _is_ignored(f) and (not results or search.real(here / f) != results)
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


def _is_same(a: Path, b: Path) -> bool:
    """Return True if two paths differ in spelling only."""
    return os.path.abspath(a) == os.path.abspath(b)  # noqa: PTH100  # keeps links


def _is_system_file(path: Path) -> bool:
    """Return True for AppleDouble files and thumbnail caches, which have image endings."""
    return path.name.startswith("._") or path.name.lower() in _SYSTEM_FILES


def _is_ignored(folder: str) -> bool:
    return folder.startswith(".") or folder.endswith(SEGMENTS_ENDING)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
