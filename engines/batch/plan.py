"""Which files a batch reads and where its results go, decided before anything is computed.

`agsr.engines.batch.inputs` finds the files. What is wrong with one of them costs this one only: its
job has a ``problem`` then.
"""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from agsr.contract import SCALE
from agsr.engines.batch.earlier import Neighbours, doubt_about, without_results
from agsr.engines.batch.inputs import (
    Input,
    RealPaths,
    Skipped,
    find,
)
from agsr.errors import ImageError, VideoError
from agsr.image.decode import READABLE
from agsr.image.encode import FORMATS, check_format
from agsr.video.formats import IN_FOLDERS, RAW, WRITABLE, is_video, result_ending

DEFAULT_SUFFIX = f"_x{SCALE}"
"""Put behind the input's name where no output file is named."""

DEFAULT_EXTENSION = ".png"
"""Format of results where nothing else is asked for: lossless, 16 bits, alpha."""

STREAM = Path("-")
"""stdin as a source, stdout as a target."""

_STREAM_STEM = "stdin"
"""What a result is named after where its source has no name."""


@dataclass(frozen=True)
class Job:
    """One file to upscale."""

    source: Path
    target: Path
    extension: str
    """Format of the result, with the dot."""
    problem: str | None = None
    """Why it can't be done; known before anything is read."""
    doubt: str | None = field(default=None, compare=False)
    """Why a result that is there already may be that of another input."""
    is_request: bool = False
    """Whether the problem is in what was asked for: other files under the same names would have it,
    too."""

    @property
    def is_video(self) -> bool:
        """Whether the result is a video; what comes from stdin to stdout may be one yet."""
        return self.extension == RAW or self.extension.lower() in WRITABLE


def plan(
    sources: Sequence[Path],
    output: Path | None = None,
    *,
    suffix: str = DEFAULT_SUFFIX,
    extension: str | None = DEFAULT_EXTENSION,
    recursive: bool = False,
    quality: int | None = None,
    folder: bool = False,
    video_extension: str | None = None,
    videos: bool = True,
    left_out: Callable[[Path, Path], None] = lambda _, __: None,
    unread: Callable[[Path], None] = lambda _: None,
    skipped: Callable[[Skipped], None] = lambda _: None,
) -> list[Job]:
    """Decide which files are read and where every result goes, before anything is computed.

    Results that would have one name keep the endings of their inputs (``a.jpg_x4.png``), or are put
    into folders named like those of their inputs; which, depends on the inputs alone, not on their
    order or on what is done already.

    Args:
        sources: Files, patterns like ``*.png`` that name no file, with ``recursive`` folders, or
            `STREAM`. One named twice is done once. Results of earlier runs are left out where
            their sources are there too; see `agsr.engines.batch.earlier.without_results`.
        output: None for beside the inputs, a file name for a single input, `STREAM`, else a
            folder, in which the folders of ``sources`` are repeated.
        suffix: Put behind each input's name.
        extension: Format of images, with the dot, where ``output`` does not name a file; None for
            that of each input, or PNG if that can't be written.
        recursive: Take the images in folders and in all folders below; linked folders are not
            followed.
        quality: Of the encoder; checked here, to be told at once where there is none.
        folder: ``output`` is a folder, whatever its name.
        video_extension: Format of videos likewise; None for that of each input.
        videos: Whether folders and patterns without an ending mean videos, too.
        left_out: Told every input that is a result of an earlier run, and its source.
        unread: Told every picture in the folders that is of a kind that can't be read.
        skipped: See `agsr.engines.batch.inputs.find`.

    Returns:
        A job per input. It has a problem where its result would replace an input or have the name
        of another's, or where a folder, a pattern or a file that was named can't be taken.

    Raises:
        ImageError: The whole makes no sense: several inputs would go to one file, or the format
            can't be written or has no quality.
        VideoError: A single video would become an image, or an image a video.
    """
    if set(suffix) & {"/", "\\"}:
        raise ImageError(f"--suffix {suffix!r}: a suffix is a part of a name, not of a path")
    wanted = READABLE | IN_FOLDERS if videos else READABLE
    inputs = find(sources, recursive, output, wanted, unread, skipped)
    inputs = without_results(inputs, suffix, left_out)
    doubts: list[str | None] = [None] * len(inputs)
    if output is None and [found.path for found in inputs] == [STREAM]:
        output = STREAM
    if output is not None and not folder and _names_a_file(output, len(inputs)):
        if len(inputs) != 1:
            raise ImageError(f"{len(inputs)} inputs can't all become {output}; name a folder")
        (source,) = (found.path for found in inputs)
        raw = RAW if is_video(source.suffix) else _ending(source, extension, None)
        endings = [raw if output == STREAM else output.suffix]
        targets = [output]
        _check_kind(source, endings[0])
    else:
        endings = [_ending(found.path, extension, video_extension) for found in inputs]
        targets = _targets(inputs, output, [suffix + ending for ending in endings])
        there = Neighbours()
        doubts = [
            doubt_about(f.path, t, lambda path: _ending(path, extension, video_extension), there)
            for f, t in zip(inputs, targets, strict=True)
        ]
    jobs = [
        Job(found.path, target, ending, found.problem, doubt, found.is_request)
        for found, target, ending, doubt in zip(inputs, targets, endings, doubts, strict=True)
    ]
    images = [job for job in jobs if not job.is_video]
    if quality is not None and extension is None:  # a mixture needs one that has a quality
        images.sort(key=lambda job: FORMATS[job.extension.lower()].quality is None)
    if images:
        _check_format(images[0], output, quality)
    return _checked(jobs)


def _ending(source: Path, image: str | None, video: str | None) -> str:
    if is_video(source.suffix):
        return video or result_ending(source.suffix)
    if image is not None:
        return image
    own = source.suffix.lower()
    return own if own in FORMATS else DEFAULT_EXTENSION


def _check_kind(source: Path, ending: str) -> None:
    """Whether a source can become what is asked for."""
    video = ending == RAW or ending.lower() in WRITABLE
    if is_video(source.suffix) and not video:
        raise VideoError(
            f"{source}: a video can't become {ending or 'a file without suffix'}; expected one of "
            f"{' '.join(WRITABLE)}"
        )
    if video and source != STREAM and not is_video(source.suffix):
        raise VideoError(f"{source}: an image can't become a video ({ending})")


def _targets(inputs: Sequence[Input], output: Path | None, endings: Sequence[str]) -> list[Path]:
    """Where results go; inputs that would have one name there keep their folder or their ending."""
    homes = [f.path.parent if output is None else output / (f.below or Path()) for f in inputs]
    stems = [_STREAM_STEM if f.path == STREAM else f.path.stem for f in inputs]
    names = [stem + end for stem, end in zip(stems, endings, strict=True)]
    for group in _sharing(homes, names):
        if output is not None and len({inputs[n].path.name for n in group}) < len(group):
            for n, own in zip(group, _folders([inputs[n].path for n in group]), strict=True):
                homes[n] = output / own
    for group in _sharing(homes, names):
        for n in group:
            names[n] = inputs[n].path.name + endings[n]
    return [home / name for home, name in zip(homes, names, strict=True)]


def _folders(files: Sequence[Path]) -> list[str]:
    """The files' folders, relative to the lowest one that holds them all."""
    folders = [os.path.abspath(file.parent) for file in files]  # noqa: PTH100  # keeps links
    common = os.path.commonpath(folders)
    return [os.path.relpath(folder, common) for folder in folders]


def _sharing(homes: Sequence[Path], names: Sequence[str]) -> list[list[int]]:
    """Where in the sequences one place stands several times."""
    places = defaultdict[tuple[Path, str], list[int]](list)
    for number, place in enumerate(zip(homes, names, strict=True)):
        places[place].append(number)
    return [group for group in places.values() if len(group) > 1]


def _names_a_file(output: Path, inputs: int) -> bool:
    """An existing folder is a folder; else a known suffix, or for one input any, makes a file."""
    if output.is_dir():
        return False
    known = output == STREAM or output.suffix.lower() in FORMATS.keys() | WRITABLE.keys()
    return known or output.exists() or (inputs == 1 and bool(output.suffix))


def _check_format(job: Job, output: Path | None, quality: int | None) -> None:
    try:
        check_format(str(job.target), job.extension, quality)
    except ImageError as error:
        if job.target != output or output.exists() or job.extension.lower() in FORMATS:
            raise
        folder = f"{output}{os.sep}"
        raise ImageError(f"{error}; or {folder}, if that is to be a folder") from None


def _checked(jobs: Sequence[Job]) -> list[Job]:
    """The jobs with the problems that they make for one another."""
    real = RealPaths()
    sources = {real(job.source) for job in jobs}
    same = {found for job in jobs if (found := _identity(job.source))}
    made_of = defaultdict[str, list[Path]](list)
    targets = [real(job.target) for job in jobs]
    for job, target in zip(jobs, targets, strict=True):
        if job.problem is None and job.target != STREAM:
            made_of[target].append(job.source)
    checked = []
    for job, target in zip(jobs, targets, strict=True):
        problem = None
        if job.problem is None and target in made_of:
            replaces = target in sources or _identity(job.target) in same
            problem = _problem(job, replaces, made_of[target])
        checked.append(replace(job, problem=problem, is_request=True) if problem else job)
    return checked


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and number of a file, the same by every name of it; None if it isn't there."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None


def _problem(job: Job, replaces: bool, sources: Sequence[Path]) -> str | None:
    if replaces:
        return f"{job.source}: its result {job.target} would replace an input; use -o or --suffix"
    others = [str(source) for source in sources if source != job.source]
    if others:
        return (
            f"{job.source}: its result {job.target} would also be that of {others[0]}; "
            "upscale them one by one, each with its own -o"
        )
    return None
