"""Plan a batch before anything is computed: which files are read and where results go.

`agsr.engines.batch.inputs` finds the files. A problem with one file affects only its own job, which
then has a ``problem``.
"""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from agsr.contract import SCALE
from agsr.engines.batch.earlier import Neighbours, overwrite_doubt, skip_results
from agsr.engines.batch.found import Input, Skipped
from agsr.engines.batch.inputs import RealPaths, find
from agsr.errors import EncodingRequestError, ImageRequestError
from agsr.image.decode import READABLE
from agsr.image.encode import FORMATS, check_format
from agsr.store.address import Address, Location
from agsr.store.locations import absolute, exists_locally, is_folder
from agsr.video.formats import IN_FOLDERS, RAW, WRITABLE, is_video, result_ending

if TYPE_CHECKING:
    from agsr.store.listing import Listings

DEFAULT_SUFFIX = f"_x{SCALE}"
"""Suffix appended to the input's stem when no output file is given."""

DEFAULT_EXTENSION = ".png"
"""Default format of results: lossless, with 16 bits and alpha."""

STREAM = Path("-")
"""stdin as a source, stdout as a target."""

_STREAM_STEM = "stdin"
"""Stem of the result of stdin."""


@dataclass(frozen=True, slots=True)
class Job:
    """One file to upscale."""

    source: Location
    target: Location
    extension: str
    """Format of the result, with the dot."""
    problem: str | None = None
    """Why it can't be upscaled, if known before anything is read."""
    doubt: str | None = field(default=None, compare=False)
    """Why an existing result may belong to another input."""
    is_request: bool = False
    """Whether the problem is in the request: any files with these names would have it."""
    name: PurePath = field(default=PurePath(), compare=False)
    """Path of the source below the folder that was searched, or its name alone: equal wherever
    the files lie, for `agsr.engines.batch.shard.Shard`."""

    @property
    def is_video(self) -> bool:
        """Whether the result is a video; stdin to stdout may still turn out to be one."""
        return self.extension == RAW or self.extension.lower() in WRITABLE


def plan(
    sources: Sequence[Location],
    output: Location | None = None,
    *,
    suffix: str = DEFAULT_SUFFIX,
    extension: str | None = DEFAULT_EXTENSION,
    recursive: bool = False,
    quality: int | None = None,
    folder: bool = False,
    video_extension: str | None = None,
    videos: bool = True,
    on_result: Callable[[Location, Location], None] = lambda _, __: None,
    on_unsupported: Callable[[Location], None] = lambda _: None,
    on_skipped: Callable[[Skipped], None] = lambda _: None,
    listings: Listings | None = None,
) -> list[Job]:
    """Plan which files are read and where each result goes, before anything is computed.

    Results with equal names keep the endings of their inputs (``a.jpg_x4.png``), or go to folders
    named like those of their inputs. The choice depends only on the inputs, not on their order or
    on existing results.

    Args:
        sources: Files, patterns like ``*.png``, folders with ``recursive``, or `STREAM`; paths or
            addresses. Duplicates are read once. Results of earlier runs are skipped if their
            sources exist too; see `agsr.engines.batch.earlier.skip_results`.
        output: None writes beside the inputs; a file name for a single input; `STREAM`; else a
            folder, which mirrors the folders of ``sources``.
        suffix: Appended to the stem of each input.
        extension: Image format, with the dot, if ``output`` doesn't name a file; None uses that of
            each input, or PNG if that can't be written.
        recursive: Search folders and their subfolders; linked folders are not followed.
        quality: Encoder quality; checked here to reject formats without a quality setting.
        folder: Treat ``output`` as a folder, whatever its name.
        video_extension: Video format, with the dot; None uses that of each input.
        videos: Whether folders and patterns without an ending include videos.
        on_result: Called with each input that is a result of an earlier run, and its source.
        on_unsupported: Called with each image in the folders whose format is not supported.
        on_skipped: See `agsr.engines.batch.inputs.find`.
        listings: Lists folders of servers; new by default.

    Returns:
        A job per input. It has a problem if its result would replace an input or another result,
        or if a folder, pattern or named file can't be read.

    Raises:
        ImageRequestError: The request is contradictory: several inputs would go to one file, or the
            format can't be written or has no quality setting.
        EncodingRequestError: A single video would become an image, or an image a video.

    >>> [str(job.target) for job in plan([Path("a.png"), Path("b.jpg")], Path("out"))]
    ['out/a_x4.png', 'out/b_x4.png']
    """
    if set(suffix) & {"/", "\\"}:
        raise ImageRequestError(
            f"--suffix {suffix!r}: a suffix is part of a file name; remove the slash"
        )
    wanted = READABLE | IN_FOLDERS if videos else READABLE
    inputs = find(sources, recursive, output, wanted, on_unsupported, on_skipped, listings)
    there = Neighbours()
    inputs = skip_results(inputs, suffix, on_result, there)
    doubts: list[str | None] = [None] * len(inputs)
    if output is None and [found.path for found in inputs] == [STREAM]:
        output = STREAM
    if output is not None and not folder and _names_a_file(output, len(inputs)):
        if len(inputs) != 1:
            raise ImageRequestError(
                f"{len(inputs)} inputs can't all become {output}; use a folder as the output"
            )
        (source,) = (found.path for found in inputs)
        raw = RAW if is_video(source.suffix) else _ending(source, extension, None)
        endings = [raw if output == STREAM else output.suffix]
        targets = [output]
        _check_kind(source, endings[0])
    else:
        endings = [_ending(found.path, extension, video_extension) for found in inputs]
        targets = _targets(inputs, output, [suffix + ending for ending in endings])
        doubts = [
            overwrite_doubt(
                f.path, t, lambda path: _ending(path, extension, video_extension), there
            )
            for f, t in zip(inputs, targets, strict=True)
        ]
    jobs = [
        Job(
            *(found.path, target, ending, found.problem, doubt, found.is_request),
            name=(found.below or PurePath()) / found.path.name,
        )
        for found, target, ending, doubt in zip(inputs, targets, endings, doubts, strict=True)
    ]
    images = [job for job in jobs if not job.is_video]
    # Of mixed formats, one with a quality setting suffices.
    if quality is not None and extension is None:
        images.sort(key=lambda job: FORMATS[job.extension.lower()].quality is None)
    if images:
        _check_format(images[0], output, quality)
    return _checked(jobs)


def _ending(source: Location, image: str | None, video: str | None) -> str:
    if is_video(source.suffix):
        return video or result_ending(source.suffix)
    if image is not None:
        return image
    own = source.suffix.lower()
    return own if own in FORMATS else DEFAULT_EXTENSION


def _check_kind(source: Location, ending: str) -> None:
    """Raise if a video would become an image, or an image a video."""
    video = ending == RAW or ending.lower() in WRITABLE
    if is_video(source.suffix) and not video:
        raise EncodingRequestError(
            f"{source}: a video can't become {ending or 'a file without suffix'}; expected one of "
            f"{' '.join(WRITABLE)}"
        )
    if video and source != STREAM and not is_video(source.suffix):
        raise EncodingRequestError(f"{source}: an image can't become a video ({ending})")


def _targets(
    inputs: Sequence[Input], output: Location | None, endings: Sequence[str]
) -> list[Location]:
    """Return the result paths; for equal names, inputs keep their folder or their ending."""
    parents = [f.path.parent if output is None else output / (f.below or Path()) for f in inputs]
    stems = [_STREAM_STEM if f.path == STREAM else f.path.stem for f in inputs]
    names = [stem + end for stem, end in zip(stems, endings, strict=True)]
    for group in _sharing(parents, names):
        if output is not None and len({inputs[n].path.name for n in group}) < len(group):
            for n, own in zip(group, _folders([inputs[n].path for n in group]), strict=True):
                parents[n] = output / own
    for group in _sharing(parents, names):
        for n in group:
            names[n] = inputs[n].path.name + endings[n]
    return [parent / name for parent, name in zip(parents, names, strict=True)]


def _folders(files: Sequence[Location]) -> list[str]:
    """Return the files' folders relative to their common parent."""
    folders = [absolute(file.parent) for file in files]
    common = os.path.commonpath(folders)
    return [os.path.relpath(folder, common) for folder in folders]


def _sharing(parents: Sequence[Location], names: Sequence[str]) -> list[list[int]]:
    """Return groups of indices with the same folder and name."""
    places = defaultdict[tuple[Location, str], list[int]](list)
    for number, place in enumerate(zip(parents, names, strict=True)):
        places[place].append(number)
    return [group for group in places.values() if len(group) > 1]


def _names_a_file(output: Location, inputs: int) -> bool:
    """Return True if ``output`` is a file: no folder, known suffix; for one input, any suffix."""
    if is_folder(output):
        return False
    known = output == STREAM or output.suffix.lower() in FORMATS.keys() | WRITABLE.keys()
    return known or exists_locally(output) or (inputs == 1 and bool(output.suffix))


def _check_format(job: Job, output: Location | None, quality: int | None) -> None:
    try:
        check_format(str(job.target), job.extension, quality)
    except ImageRequestError as error:
        if job.target != output or exists_locally(output) or job.extension.lower() in FORMATS:
            raise
        folder = f"{output}{os.sep}"
        raise ImageRequestError(f"{error}; or {folder} for a folder") from None


def _checked(jobs: Sequence[Job]) -> list[Job]:
    """Return the jobs, with problems added where they conflict."""
    real = RealPaths()
    sources = {real(job.source) for job in jobs}
    identities = {found for job in jobs if (found := _identity(job.source))}
    made_of = defaultdict[str, list[Location]](list)
    targets = [real(job.target) for job in jobs]
    for job, target in zip(jobs, targets, strict=True):
        if job.problem is None and job.target != STREAM:
            made_of[target].append(job.source)
    checked = []
    for job, target in zip(jobs, targets, strict=True):
        problem = _remote_problem(job)
        if job.problem is None and problem is None and target in made_of:
            replaces = target in sources or _identity(job.target) in identities
            problem = _problem(job, replaces, made_of[target])
        given = problem is not None and job.problem is None
        checked.append(replace(job, problem=problem, is_request=True) if given else job)
    return checked


def _remote_problem(job: Job) -> str | None:
    """Return why a job's addresses can't be used."""
    places = [place for place in (job.source, job.target) if isinstance(place, Address)]
    if places and job.is_video:
        return f"{job.source}: videos are read and written locally only; copy it to a folder first"
    if isinstance(job.target, Address) and not job.target.is_writable:
        return f"{job.source}: {job.target.scheme}:// is only read; name a folder with -o"
    return None


def _identity(path: Location) -> tuple[int, int] | None:
    """Return device and inode of a local file, equal for all its hard links; None if missing."""
    if not isinstance(path, Path):
        return None
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None


def _problem(job: Job, replaces: bool, sources: Sequence[Location]) -> str | None:
    if replaces:
        return f"{job.source}: its result {job.target} would replace an input; use -o or --suffix"
    others = [str(source) for source in sources if source != job.source]
    if others:
        return (
            f"{job.source}: its result {job.target} would overwrite that of {others[0]}; "
            "upscale them one by one, each with its own -o"
        )
    return None
