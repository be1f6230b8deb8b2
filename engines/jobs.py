"""Where the results of a batch of files go, decided before anything is computed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agsr.contract import SCALE
from agsr.encode import FORMATS, check_writable
from agsr.errors import ImageError

DEFAULT_SUFFIX = f"_x{SCALE}"
"""Put behind the input's name where no output file is named."""

DEFAULT_EXTENSION = ".png"
"""Format of results where nothing else is asked for: lossless, 16 bits, alpha."""


@dataclass(frozen=True)
class Job:
    """One file to upscale."""

    source: Path
    target: Path


def plan(
    sources: Sequence[Path],
    output: Path | None = None,
    *,
    suffix: str = DEFAULT_SUFFIX,
    extension: str = DEFAULT_EXTENSION,
) -> list[Job]:
    """Decide where every result goes, before anything is computed.

    Args:
        sources: Input files; one named twice is done once.
        output: None for beside the inputs, an image file name for a single input, else a folder.
        suffix: Put behind each input's name.
        extension: Format of the results, with the dot, where ``output`` does not name a file.

    Raises:
        ImageError: Two results would have one name, a result would replace an input, several
            inputs would go to one file, or the format can't be written.
    """
    if "-" in map(str, (*sources, output)):
        raise ImageError("'-': stdin and stdout are not supported; name files")
    if set(suffix) & {"/", "\\"}:
        raise ImageError(f"--suffix {suffix!r}: a suffix is a part of a name, not of a path")
    sources = _distinct(sources)
    if output is not None and _names_a_file(output, len(sources)):
        if len(sources) != 1:
            raise ImageError(f"{len(sources)} inputs can't all become {output}; name a folder")
        jobs = [Job(sources[0], output)]
    else:
        names = [source.stem + suffix + extension for source in sources]
        folders = [output or source.parent for source in sources]
        jobs = [Job(s, f / n) for s, f, n in zip(sources, folders, names, strict=True)]
    _check_targets(jobs)
    return jobs


def _distinct(paths: Sequence[Path]) -> list[Path]:
    """The paths without those that lead to the same file as one before."""
    first: dict[Path, Path] = {}
    for path in paths:
        first.setdefault(_real(path), path)
    return list(first.values())


def _names_a_file(output: Path, inputs: int) -> bool:
    """An existing folder is a folder; else a known suffix, or for one input any, makes a file."""
    if output.is_dir():
        return False
    known = output.suffix.lower() in FORMATS
    return known or output.exists() or (inputs == 1 and bool(output.suffix))


def _check_targets(jobs: Sequence[Job]) -> None:
    sources = {_real(job.source) for job in jobs}
    taken: dict[Path, Path] = {}
    for job in jobs:
        check_writable(str(job.target), job.target.suffix)
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
