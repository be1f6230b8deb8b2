"""Which files a batch reads: names, patterns and folders → `Input`, each file once.

Also which of them are results of earlier runs: `agsr.engines.batch.plan` leaves those out, so that
the same command can be repeated.
"""

from __future__ import annotations

import glob
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from agsr.contract import SCALE
from agsr.image.decode import READABLE, formats_of
from agsr.image.encode import FORMATS as WRITTEN_FORMATS
from agsr.image.formats.heif import ENDINGS as HEIF_ENDINGS
from agsr.image.ops.output_size import MAX_SCALE
from agsr.image.unsupported import ENDINGS
from agsr.video.formats import READABLE as MEDIA
from agsr.video.formats import SEGMENTS_ENDING, WRITABLE, is_video

_NAMED_BY_SIZE = re.compile(r"(.+)_(?:x(\d+(?:\.\d+)?)|(?:fit)?\d+x\d+|max\d+)")
"""Stem of a result, by `agsr.image.ops.output_size.Sizing.suffix`; earlier ones had no ``fit``."""

_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r"})
"""What systems put into folders, in lower case."""

_SOURCES = READABLE | MEDIA
"""Endings of files that can have a result."""


@dataclass(frozen=True)
class Input:
    """A file to read, or what stands in the way."""

    path: Path
    below: Path | None = None
    """Folder relative to the one it was found in; None for a file that was named."""
    problem: str | None = None
    """Why nothing can be read there."""


def find(
    sources: Sequence[Path],
    recursive: bool,
    output: Path | None,
    wanted: frozenset[str] = READABLE,
    unread: Callable[[Path], None] = lambda _: None,
) -> list[Input]:
    """The files that are meant, each once, in the order of ``sources``, folders by name.

    Args:
        sources: Files, patterns like ``*.png`` that name no file, and folders.
        recursive: Take the images in folders and in all folders below, but for hidden ones, linked
            ones, ``output`` and the segments of a video that was broken off.
        output: Folder of the results.
        wanted: File name endings that are taken from folders.
        unread: Told every picture in the folders that is of a kind that can't be read.

    Files of the system among several sources, as a shell's pattern lists them, are skipped.
    """
    real, first, others = RealPaths(), dict[str, Input](), dict[str, Path]()
    look = _Look(real, wanted, lambda path: others.setdefault(real(path), path))
    for source in sources:
        if len(sources) > 1 and _is_of_the_system(source):
            continue
        for found in _found(source, recursive, output, look):
            first.setdefault(real(found.path), found)
    for other in others.values():
        unread(other)
    return list(first.values())


def without_results(
    inputs: Sequence[Input], suffix: str, left_out: Callable[[Path, Path], None]
) -> list[Input]:
    """Skip what an earlier run has made of other files.

    A file is skipped as a result if it is named like one (its source's name and ``suffix``, or a
    size like ``_x4`` and ``_max1920``), if it lies beside a source of that name or in a folder into
    which the inputs' folders were repeated, and if it has the proportions of this source and a size
    that its name allows. Its source is among the inputs, or, of a file that is not the only input,
    lies there with another ending. A result that is named alone is an input.

    Args:
        inputs: From `find`.
        suffix: That of this run.
        left_out: Called with every such file and its source.
    """
    known = defaultdict[tuple[str, str], list[Path]](list)
    for found in inputs:
        for name in {found.path.stem, found.path.name}:
            known[str(found.path.parent), name].append(found.path)
    alone = len(inputs) == 1 and inputs[0].below is None
    there = _Neighbours()
    kept = []
    for found in inputs:
        origin = next(
            (
                source
                for source, scale in _origins(found, suffix, known, None if alone else there)
                if _may_come_of(found.path, source, scale)
            ),
            None,
        )
        if origin is None:
            kept.append(found)
        else:
            left_out(found.path, origin)
    return kept


class _Neighbours:
    """The images in folders, by name without ending; a folder is listed once."""

    def __init__(self) -> None:
        self._listed = cache(self._list)

    def __call__(self, folder: Path, stem: str) -> list[Path]:
        return self._listed(folder).get(stem, [])

    def _list(self, folder: Path) -> dict[str, list[Path]]:
        found = defaultdict[str, list[Path]](list)
        try:
            names = sorted(os.listdir(folder))  # noqa: PTH208  # thousands of them
        except OSError:
            return found
        for name in names:
            path = folder / name
            if path.suffix.lower() in _SOURCES and not name.startswith("."):
                for key in {path.stem, name}:
                    found[key].append(path)
        return found


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


def _found(path: Path, recursive: bool, output: Path | None, look: _Look) -> Iterator[Input]:
    if path.is_dir():
        if not recursive:
            yield Input(path, problem=f"{path}: a folder; -r upscales the images in it")
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
                continue
            if ending in look.wanted:
                yield Input(here / file, below)
            elif ending in ENDINGS:
                look.unread(here / file)
    for error in failed:
        problem = f"{error.filename}: can't be read: {error.strerror}"
        yield Input(Path(error.filename), problem=problem)


def _is_of_the_system(path: Path) -> bool:
    """Whether a file is no image whatever its ending: AppleDouble, or a folder's thumbnails."""
    return path.name.startswith("._") or path.name.lower() in _SYSTEM_FILES


def _is_passed_over(folder: str) -> bool:
    return folder.startswith(".") or folder.endswith(SEGMENTS_ENDING)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _origins(
    found: Input,
    suffix: str,
    known: Mapping[tuple[str, str], Sequence[Path]],
    there: _Neighbours | None,
) -> Iterator[tuple[Path, float]]:
    """Files of which one could be the result, by its name and place, and the largest scale then.

    First inputs, then, where they are asked for, neighbours that are no inputs.
    """
    path = found.path
    if path.suffix.lower() not in WRITTEN_FORMATS.keys() | WRITABLE.keys():
        return
    for base, scale in _bases(path.stem, suffix):
        for folder in _folders(found):
            yield from ((source, scale) for source in known.get((str(folder), base), ()))
        for source in there(path.parent, base) if there else ():
            if source.suffix.lower() != path.suffix.lower():
                yield source, scale


def _bases(stem: str, suffix: str) -> Iterator[tuple[str, float]]:
    """Names of possible sources of a result, and how many times larger it may be."""
    if match := _NAMED_BY_SIZE.fullmatch(stem):
        yield match[1], max(float(match[2]), SCALE) if match[2] else MAX_SCALE
    elif suffix and stem.endswith(suffix) and stem != suffix:
        yield stem.removesuffix(suffix), MAX_SCALE


def _folders(found: Input) -> Iterator[Path]:
    """Where the source of a result may lie: beside it, or where a folder above repeats folders."""
    yield found.path.parent
    if found.below is not None:
        parts = found.below.parts
        root = found.path.parents[len(parts)]
        yield from (root.joinpath(*parts[start:]) for start in range(1, len(parts) + 1))


def _may_come_of(large: Path, small: Path, scale: float) -> bool:
    """Whether a picture has the proportions of another, and at most ``scale`` times its size.

    Of videos the names decide, and of HEIC, whose size only an extra's decoder tells.
    """
    if is_video(large.suffix) or is_video(small.suffix):
        return is_video(large.suffix) and is_video(small.suffix)
    if small.suffix.lower() in HEIF_ENDINGS:
        return True
    try:
        # Sorted, since the smaller one may be stored lying.
        (low, high), (short, long) = sorted(_size(large)), sorted(_size(small))
    except Image.DecompressionBombError:  # too large for Pillow to say, as results may be
        return True
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, NotImplementedError):
        return False  # not made here: results appear complete
    least = max((low - 0.5) / short, (high - 0.5) / long)
    return least <= min((low + 0.5) / short, (high + 0.5) / long, scale)


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path, formats=formats_of(path.name)) as image:
        size: tuple[int, int] = image.size
    return size
