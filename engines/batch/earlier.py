"""Detect results of earlier runs among the inputs, and results that would be overwritten wrongly.

`agsr.engines.batch.plan` skips the former, so commands are safe to repeat. Within a run, results
never share a name. Across runs, a result doesn't record its source; its proportions and the files
beside the source indicate it.
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
from agsr.engines.batch.found import Input
from agsr.engines.batch.headers import peek, stored_size
from agsr.image.decode import READABLE
from agsr.image.encode import FORMATS as WRITTEN_FORMATS
from agsr.image.formats.signatures import HEIF_ENDINGS
from agsr.image.ops.output_size import LARGEST
from agsr.store.address import Location
from agsr.store.locations import is_local_file
from agsr.video.formats import READABLE as MEDIA
from agsr.video.formats import WRITABLE, is_video

_NAMED_BY_SIZE = re.compile(r"(.+)_(?:x(\d+(?:\.\d+)?)|(?:fit)?\d+x\d+|max\d+)")
"""Stem of a result, by `OutputSize.suffix`; earlier versions wrote no ``fit``."""

_SOURCES = READABLE | MEDIA
"""Endings of files that can be a source."""


def skip_results(
    inputs: Sequence[Input],
    suffix: str,
    on_result: Callable[[Location, Location], None],
    there: Neighbours,
) -> list[Input]:
    """Remove inputs that an earlier run made from other files.

    A file is skipped as a result if

    - its name is that of its source with ``suffix``, or with a size like ``_x4`` or ``_max1920``,
    - it is beside that source, or in a folder that mirrors the inputs' folders, and
    - it has the proportions of that source and a size that its name allows.

    The source is among the inputs or, unless the file is the only input, beside it with another
    ending. A result named alone is an input.

    Args:
        inputs: From `agsr.engines.batch.inputs.find`.
        suffix: Suffix of this run.
        on_result: Called with each such file and its source.
        there: Lists and measures the files beside the inputs.
    """
    known = defaultdict[tuple[str, str], list[Location]](list)
    for found in inputs:
        for name in {found.path.stem, found.path.name}:
            known[str(found.path.parent), name].append(found.path)
    alone = len(inputs) == 1 and inputs[0].below is None
    remaining = []
    for found in inputs:
        origin = next(
            (
                source
                for source, scale in _origins(found, suffix, known, None if alone else there)
                if may_be_result_of(found.path, source, scale)
            ),
            None,
        )
        if origin is None:
            remaining.append(found)
        else:
            on_result(found.path, origin)
    return remaining


class Neighbours:
    """Images and videos in folders by stem; each folder is listed once."""

    def __init__(self) -> None:
        self._listed = cache(self._list)

    def __call__(self, folder: Location, stem: str) -> Sequence[Location]:
        """Return the files in a local folder with this stem or full name.

        Folders of servers are not listed for it: those that are searched are inputs anyway.
        """
        return self._listed(folder).get(stem, []) if isinstance(folder, Path) else []

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


def overwrite_doubt(
    source: Location, target: Location, ending_of: Callable[[Location], str], there: Neighbours
) -> str | None:
    """Return why an existing result may belong to another input; None if there is no doubt.

    None for results on servers, too: looking at them would take requests per file.

    Args:
        source: The input.
        target: Its result.
        ending_of: Returns the ending of an input's result.
        there: Lists and measures the files beside the source.
    """
    if target.name.startswith(source.name) or not is_local_file(target):
        return None  # named after its source's full name, or missing
    for other in there(source.parent, source.stem):
        alike = other.stem == source.stem and other.suffix.lower() != source.suffix.lower()
        same = alike and ending_of(other).lower() == target.suffix.lower()
        if same and may_be_result_of(target, other, LARGEST):
            return f"{target} may be the result of {other}"
    if is_video(source.suffix):
        return None
    large, small = stored_size(target), stored_size(source)
    if large and small and all(small) and not _fits(large, small, LARGEST):
        return f"{target} has other proportions than {source}: the result of another input?"
    return None


def _origins(
    found: Input,
    suffix: str,
    known: Mapping[tuple[str, str], Sequence[Location]],
    there: Neighbours | None,
) -> Iterator[tuple[Location, float]]:
    """Yield possible sources by name and folder, with the largest possible scale.

    Inputs come first, then, with ``there``, neighbours that are not inputs.
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
    """Yield the stems of possible sources, with the largest possible scale."""
    if match := _NAMED_BY_SIZE.fullmatch(stem):
        # A `--suffix` may have named a result of this project's networks after any size.
        yield match[1], max(float(match[2]), SCALE) if match[2] else LARGEST
    elif suffix and stem.endswith(suffix) and stem != suffix:
        yield stem.removesuffix(suffix), LARGEST


def _folders(found: Input) -> Iterator[Location]:
    """Yield possible folders of a source: that of the result, or those it mirrors."""
    yield found.path.parent
    if found.below is not None:
        parts = found.below.parts
        root = found.path.parents[len(parts)]
        yield from (root.joinpath(*parts[start:]) for start in range(1, len(parts) + 1))


def may_be_result_of(large: Location, small: Location, scale: float) -> bool:
    """Return True if ``large`` has the proportions of ``small`` and at most that scale.

    Videos and HEIC are judged by name alone: reading their size requires an optional decoder. So
    are files on servers, where it takes a request.
    """
    if is_video(large.suffix) or is_video(small.suffix):
        return is_video(large.suffix) and is_video(small.suffix)
    if small.suffix.lower() in HEIF_ENDINGS:
        return True
    if not isinstance(large, Path) or not isinstance(small, Path):
        return True
    try:
        sizes = peek(large).size, peek(small).size
    except Image.DecompressionBombError:  # beyond Pillow's limit, as results may be
        return True
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, NotImplementedError):
        return False  # not a result: results appear complete
    return _fits(*sizes, scale)


def _fits(large: tuple[int, int], small: tuple[int, int], scale: float) -> bool:
    """Return True if ``large`` is ``small`` scaled by at most ``scale``, perhaps rotated.

    >>> _fits((400, 300), (75, 100), 4)
    True
    """
    # Sorted, because the smaller one may be stored rotated.
    (low, high), (short, long) = sorted(large), sorted(small)
    least = max((low - 0.5) / short, (high - 0.5) / long)
    return least <= min((low + 0.5) / short, (high + 0.5) / long, scale)
