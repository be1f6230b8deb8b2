"""Which files a batch reads: names, patterns and folders → `Input`, each file once.

Those that are results of earlier runs are found by `agsr.engines.batch.earlier`.
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
"""What systems put into folders, in lower case."""

_OF_THE_SYSTEM = "a file of the system by its name, not an image"


@dataclass(frozen=True)
class Input:
    """A file to read, or what stands in the way."""

    path: Path
    below: Path | None = None
    """Folder relative to the one it was found in; None for a file that was named."""
    problem: str | None = None
    """Why nothing can be read there."""
    is_request: bool = False
    """Whether the problem is how it was named, not what is there."""


class Skipped(NamedTuple):
    """A file that is not read."""

    path: Path
    reason: str
    named: bool
    """Whether it was named, not found in a folder or by a pattern."""
    linked: bool = False
    """Whether it is another name of an input."""


def find(
    sources: Sequence[Path],
    recursive: bool,
    output: Path | None,
    wanted: frozenset[str] = READABLE,
    unread: Callable[[Path], None] = lambda _: None,
    skipped: Callable[[Skipped], None] = lambda _: None,
) -> list[Input]:
    """The files that are meant, each once, in the order of ``sources``, folders by name.

    Args:
        sources: Files, patterns like ``*.png`` that name no file, and folders.
        recursive: Take the images in folders and in all folders below, but for hidden ones, linked
            ones, ``output`` and the segments of a video that was broken off.
        output: Folder of the results.
        wanted: File name endings that are taken from folders.
        unread: Told every picture in the folders that is of a kind that can't be read.
        skipped: Called with every other file that is not read though its ending is wanted: files
            of the system among several sources, hidden files in folders, links to other inputs.
    """
    real, first, others = RealPaths(), dict[str, Input](), dict[str, Path]()
    look = _Look(real, wanted, lambda path: others.setdefault(real(path), path), skipped)
    for source in sources:
        if len(sources) > 1 and _is_of_the_system(source):
            skipped(Skipped(source, _OF_THE_SYSTEM, named=True))
            continue
        for found in _found(source, recursive, output, look):
            known = first.setdefault(real(found.path), found)
            if known is not found and not _is_same(known.path, found.path):
                reason = f"the same file as {known.path}"
                skipped(Skipped(found.path, reason, found.below is None, linked=True))
    for other in others.values():
        unread(other)
    return list(first.values())


class RealPaths:
    """Paths without links, as text; unlike `Path.resolve`, loops of links are left as they are."""

    def __init__(self) -> None:
        self._folder = cache(os.path.realpath)

    def __call__(self, path: Path) -> str:
        """The path of the file itself; its folder is looked up once."""
        folder, name = os.path.split(path)
        # Of a name that is too long, Path.is_symlink raises.
        if name in ("", ".", "..") or os.path.islink(path):  # noqa: PTH114
            return os.path.realpath(path)
        return os.path.join(self._folder(folder), name)  # noqa: PTH118  # thousands of them


class _Look(NamedTuple):
    """How folders are looked through: see `find`."""

    real: RealPaths
    wanted: frozenset[str]
    unread: Callable[[Path], object]
    skipped: Callable[[Skipped], object]


def _found(path: Path, recursive: bool, output: Path | None, look: _Look) -> Iterator[Input]:
    if path.is_dir():
        if not recursive:
            problem = f"{path}: a folder; -r upscales the images in it"
            yield Input(path, problem=problem, is_request=True)
            return
        found = list(_images(path, output, look))
    elif glob.has_magic(str(path)) and not os.path.lexists(path):
        found = [Input(name, Path()) for name in _matching(path, look.wanted)]
    else:
        found = [Input(path)]
    if not found:
        endings = " *".join(sorted(READABLE))
        problem = f"{path}: no image in it; expected names like *{endings}"
        found = [Input(path, problem=problem)]
    yield from found


def _matching(pattern: Path, wanted: frozenset[str]) -> list[Path]:
    """The files that fit a pattern; without an ending, it means what is wanted."""
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


def _images(folder: Path, output: Path | None, look: _Look) -> Iterator[Input]:
    results = None if output is None else os.path.realpath(output)
    if results == os.path.realpath(folder):
        results = None
    failed: list[OSError] = []
    for name, folders, files in os.walk(folder, onerror=failed.append):
        here = Path(name)
        folders[:] = sorted(
            f
            for f in folders
            if not _is_passed_over(f) and (not results or look.real(here / f) != results)
        )
        below = here.relative_to(folder)
        for file in sorted(files):
            ending = os.path.splitext(file)[1].lower()  # noqa: PTH122  # thousands of them
            if file.startswith("."):
                if ending in look.wanted:
                    look.skipped(Skipped(here / file, "hidden", named=False))
                continue
            if ending in look.wanted:
                yield Input(here / file, below)
            elif ending in ENDINGS:
                look.unread(here / file)
    for error in failed:
        problem = f"{error.filename}: can't be read: {error.strerror}"
        yield Input(Path(error.filename), problem=problem)


def _is_same(a: Path, b: Path) -> bool:
    """Return True if two paths differ in spelling only."""
    return os.path.abspath(a) == os.path.abspath(b)  # noqa: PTH100  # keeps links


def _is_of_the_system(path: Path) -> bool:
    """Whether a file is no image whatever its ending: AppleDouble, or a folder's thumbnails."""
    return path.name.startswith("._") or path.name.lower() in _SYSTEM_FILES


def _is_passed_over(folder: str) -> bool:
    return folder.startswith(".") or folder.endswith(SEGMENTS_ENDING)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
