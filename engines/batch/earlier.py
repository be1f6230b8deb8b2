"""Results of earlier runs: which inputs are some, and which are about to be replaced wrongly.

`agsr.engines.batch.plan` skips the former, so that the same command can be repeated. Within a run,
results that would have one name get different ones. Of two runs nothing in a result says which file
it was made of; its proportions and the files beside its source do.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from agsr.contract import SCALE
from agsr.engines.batch.headers import stored_size
from agsr.engines.batch.inputs import Input
from agsr.image.decode import READABLE, formats_of
from agsr.image.encode import FORMATS as WRITTEN_FORMATS
from agsr.image.formats.heif import ENDINGS as HEIF_ENDINGS
from agsr.image.ops.output_size import MAX_SCALE
from agsr.video.formats import READABLE as MEDIA
from agsr.video.formats import WRITABLE, is_video

_NAMED_BY_SIZE = re.compile(r"(.+)_(?:x(\d+(?:\.\d+)?)|(?:fit)?\d+x\d+|max\d+)")
"""Stem of a result, by `OutputSize.suffix`; earlier versions wrote no ``fit``."""

_SOURCES = READABLE | MEDIA
"""Endings of files that can have a result."""


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
    there = Neighbours()
    kept = []
    for found in inputs:
        origin = next(
            (
                source
                for source, scale in _origins(found, suffix, known, None if alone else there)
                if may_come_of(found.path, source, scale)
            ),
            None,
        )
        if origin is None:
            kept.append(found)
        else:
            left_out(found.path, origin)
    return kept


class Neighbours:
    """The images in folders, by name without ending; a folder is listed once."""

    def __init__(self) -> None:
        self._listed = cache(self._list)

    def __call__(self, folder: Path, stem: str) -> list[Path]:
        """The files in a folder that have a name, with or without their ending."""
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


def doubt_about(
    source: Path, target: Path, ending_of: Callable[[Path], str], there: Neighbours
) -> str | None:
    """Return why a result that exists may be that of another input; None if it is not doubtful.

    Args:
        source: The input.
        target: Its result, named after it.
        ending_of: Ending of the result of an input.
        there: Lists the files beside the source.
    """
    if target.name.startswith(source.name) or not os.path.isfile(target):  # noqa: PTH113  # any name
        return None  # named after the whole name of its source, or not there
    for other in there(source.parent, source.stem):
        alike = other.stem == source.stem and other.suffix.lower() != source.suffix.lower()
        same = alike and ending_of(other).lower() == target.suffix.lower()
        if same and may_come_of(target, other, MAX_SCALE):
            return f"{target} may be the result of {other}"
    if is_video(source.suffix):
        return None
    large, small = stored_size(target), stored_size(source)
    if large and small and all(small) and not _fits(large, small, MAX_SCALE):
        return f"{target} has other proportions than {source}, as the result of another input"
    return None


def _origins(
    found: Input,
    suffix: str,
    known: Mapping[tuple[str, str], Sequence[Path]],
    there: Neighbours | None,
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


def may_come_of(large: Path, small: Path, scale: float) -> bool:
    """Whether a picture has the proportions of another, and at most ``scale`` times its size.

    Of videos the names decide, and of HEIC, whose size only an extra's decoder tells.
    """
    if is_video(large.suffix) or is_video(small.suffix):
        return is_video(large.suffix) and is_video(small.suffix)
    if small.suffix.lower() in HEIF_ENDINGS:
        return True
    try:
        sizes = _size(large), _size(small)
    except Image.DecompressionBombError:  # too large for Pillow to say, as results may be
        return True
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, NotImplementedError):
        return False  # not made here: results appear complete
    return _fits(*sizes, scale)


def _fits(large: tuple[int, int], small: tuple[int, int], scale: float) -> bool:
    """Return True if one size is the other, at most ``scale`` times as large, perhaps turned."""
    # Sorted, since the smaller one may be stored lying.
    (low, high), (short, long) = sorted(large), sorted(small)
    least = max((low - 0.5) / short, (high - 0.5) / long)
    return least <= min((low + 0.5) / short, (high + 0.5) / long, scale)


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path, formats=formats_of(path.name)) as image:
        size: tuple[int, int] = image.size
    return size
