"""Which files a batch reads and where its results go, decided before anything is computed."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agsr.contract import SCALE
from agsr.decode import READABLE
from agsr.encode import FORMATS, check_writable
from agsr.errors import ImageError

DEFAULT_SUFFIX = f"_x{SCALE}"
"""Put behind the input's name where no output file is named."""

DEFAULT_EXTENSION = ".png"
"""Format of results where nothing else is asked for: lossless, 16 bits, alpha."""

STREAM = Path("-")
"""stdin as a source, stdout as a target."""


@dataclass(frozen=True)
class Job:
    """One file to upscale."""

    source: Path
    target: Path
    extension: str
    """Format of the result, with the dot."""


@dataclass(frozen=True)
class _Input:
    path: Path
    below: Path | None = None
    """Folder relative to the one it was found in; None for a file that was named."""


def plan(
    sources: Sequence[Path],
    output: Path | None = None,
    *,
    suffix: str = DEFAULT_SUFFIX,
    extension: str = DEFAULT_EXTENSION,
    recursive: bool = False,
    quality: int | None = None,
) -> list[Job]:
    """Decide which files are read and where every result goes, before anything is computed.

    Args:
        sources: Files, patterns like ``*.png`` that name no file, with ``recursive`` folders, or
            `STREAM`. One named twice is done once. Results of this plan that are already in such a
            folder are not taken for inputs.
        output: None for beside the inputs, an image file name for a single input, `STREAM`, else a
            folder, in which the folders of ``sources`` are repeated.
        suffix: Put behind each input's name.
        extension: Format of the results, with the dot, where ``output`` does not name a file.
        recursive: Take the images in folders and in all folders below.
        quality: Of the encoder; checked here, to be told at once where there is none.

    Raises:
        ImageError: Two results would have one name, a result would replace an input, several
            inputs would go to one file, the format can't be written or has no quality, a folder is
            given without ``recursive``, or a pattern or a folder holds no image.
    """
    if set(suffix) & {"/", "\\"}:
        raise ImageError(f"--suffix {suffix!r}: a suffix is a part of a name, not of a path")
    inputs = _distinct([found for path in sources for found in _find(path, recursive, output)])
    if output is None and [found.path for found in inputs] == [STREAM]:
        output = STREAM
    if output is not None and _names_a_file(output, len(inputs)):
        if len(inputs) != 1:
            raise ImageError(f"{len(inputs)} inputs can't all become {output}; name a folder")
        form = extension if output == STREAM else output.suffix
        jobs = [Job(inputs[0].path, output, form)]
    else:
        jobs = _without_results(inputs, _named(inputs, output, suffix, extension))
    _check_targets(jobs, quality)
    return jobs


def _find(path: Path, recursive: bool, output: Path | None) -> Iterator[_Input]:
    if path.is_dir():
        if not recursive:
            raise ImageError(f"{path}: a folder; -r upscales the images in it")
        found = [_Input(file, file.parent.relative_to(path)) for file in _images(path, output)]
    elif glob.has_magic(str(path)) and not path.exists():
        names = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207  # may be absolute
        found = [_Input(name, Path()) for name in map(Path, names) if _is_meant(name, path)]
    else:
        found = [_Input(path)]
    if not found:
        raise ImageError(
            f"{path}: no image in it; expected names like *{' *'.join(sorted(READABLE))}"
        )
    yield from found


def _is_meant(file: Path, pattern: Path) -> bool:
    """Whether a pattern means a file that it fits: without an ending, it means images."""
    return file.is_file() and (bool(pattern.suffix) or file.suffix.lower() in READABLE)


def _images(folder: Path, output: Path | None) -> list[Path]:
    """The images below a folder, but for hidden ones and those in the folder of the results."""
    results = None if output is None else _real(output)
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in READABLE
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and (results is None or results == _real(folder) or results not in _real(path).parents)
        and path.is_file()
    ]


def _distinct(inputs: Sequence[_Input]) -> list[_Input]:
    """The inputs without those that lead to the same file as one before."""
    first: dict[Path, _Input] = {}
    for found in inputs:
        first.setdefault(_real(found.path), found)
    return list(first.values())


def _named(inputs: Sequence[_Input], output: Path | None, suffix: str, extension: str) -> list[Job]:
    """Jobs with targets; inputs that differ in their ending only keep it in the result's name."""

    def target(found: _Input, stem: str) -> Path:
        folder = found.path.parent if output is None else output / (found.below or Path())
        return folder / (stem + suffix + extension)

    short = [target(found, found.path.stem) for found in inputs]
    uses = Counter(short)
    return [
        Job(found.path, name if uses[name] == 1 else target(found, found.path.name), extension)
        for found, name in zip(inputs, short, strict=True)
    ]


def _without_results(inputs: Sequence[_Input], jobs: Sequence[Job]) -> list[Job]:
    """Without found files that an earlier run of the same jobs has made."""
    results = {_real(job.target) for job in jobs if _real(job.target) != _real(job.source)}
    return [
        job
        for found, job in zip(inputs, jobs, strict=True)
        if found.below is None or _real(job.source) not in results
    ]


def _names_a_file(output: Path, inputs: int) -> bool:
    """An existing folder is a folder; else a known suffix, or for one input any, makes a file."""
    if output.is_dir():
        return False
    known = output == STREAM or output.suffix.lower() in FORMATS
    return known or output.exists() or (inputs == 1 and bool(output.suffix))


def _check_targets(jobs: Sequence[Job], quality: int | None) -> None:
    sources = {_real(job.source) for job in jobs}
    taken: dict[Path, Path] = {}
    for job in jobs:
        check_writable(str(job.target), job.extension, quality)
        if job.target == STREAM:
            continue
        target = _real(job.target)
        if target in sources:
            raise ImageError(f"{job.target}: the result would replace an input; use -o or --suffix")
        if taken.setdefault(target, job.source) != job.source:
            raise ImageError(
                f"{taken[target]} and {job.source} would both become {job.target}; "
                "upscale them one by one, each with its own -o"
            )


def _real(path: Path) -> Path:
    """The path without links; unlike `Path.resolve`, a loop of links is left as it is."""
    return Path(os.path.realpath(path))
