"""Where the results of a batch of files go, decided before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agsr.contract import SCALE
from agsr.errors import ImageError
from agsr.image import WRITABLE, check_writable

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
    sources = list(dict.fromkeys(sources))
    if output is not None and output.suffix.lower() in WRITABLE and not output.is_dir():
        if len(sources) != 1:
            raise ImageError(f"{len(sources)} inputs can't all become {output}; name a folder")
        jobs = [Job(sources[0], output)]
    else:
        names = [source.stem + suffix + extension for source in sources]
        folders = [output or source.parent for source in sources]
        jobs = [Job(s, f / n) for s, f, n in zip(sources, folders, names, strict=True)]
    _check_targets(jobs)
    return jobs


def _check_targets(jobs: Sequence[Job]) -> None:
    sources = {job.source.resolve() for job in jobs}
    taken: dict[Path, Path] = {}
    for job in jobs:
        check_writable(job.target)
        target = job.target.resolve()
        if target in sources:
            raise ImageError(f"{job.target}: the result would replace an input; use -o or --suffix")
        if taken.setdefault(target, job.source) != job.source:
            raise ImageError(
                f"{taken[target]} and {job.source} would both become {job.target}; "
                "use different --suffix or -o"
            )
