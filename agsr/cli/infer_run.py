"""What ``agsr infer`` does with its jobs: which are left to do, and what runs them.

`agsr.cli.infer_report` prints and counts what comes of them.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from agsr.cli.infer_report import note_small, report_outcomes, tell_error
from agsr.cli.infer_video import (
    compression_note,
    note_compressed_video,
    report_what_is_saved,
    run_videos,
)
from agsr.errors import ImageError
from agsr.pretrained import WEIGHTS_FOR_FAULTS
from agsr.store.address import Address, Location
from agsr.store.locations import may_exist
from agsr.system.text import printable

if TYPE_CHECKING:
    from agsr.cli.output.infer import BatchProgress, Tally
    from agsr.engines.batch.found import Skipped
    from agsr.engines.batch.outcome import InferOptions, Outcome
    from agsr.engines.batch.plan import Job
    from agsr.engines.batch.shard import Shard
    from agsr.engines.pool.pool import WorkerPool
    from agsr.engines.upscaler import Upscaler
    from agsr.store.listing import Listings

MOST_EXAMINED = 1000
"""Files whose compression is looked up before the work begins."""


def count_left_out(path: Location, source: Location, tally: Tally, verbose: bool) -> None:
    """Count an input that is a result of ``source``; with ``verbose``, name it on stderr."""
    tally.left_out += 1
    if verbose:
        click.echo(printable(f"{path}: skipped as a result of {source}"), err=True)


def count_unread(path: Location, tally: Tally, verbose: bool) -> None:
    """Count a picture of a kind that can't be read; with ``verbose``, name it on stderr."""
    tally.unread += 1
    if verbose:
        click.echo(printable(f"{path}: skipped, {path.suffix} is not supported"), err=True)


def count_skipped(file: Skipped, tally: Tally, verbose: bool) -> None:
    """Count a hidden file or another name of an input; print it if it was named, or verbose."""
    if file.linked:
        tally.links += 1
    else:
        tally.hidden += 1
    if verbose or file.named:
        click.echo(printable(f"skipped: {file.path}: {file.reason}"), err=True)


def of_shard(jobs: Sequence[Job], shard: Shard, tally: Tally) -> list[Job]:
    """Return the jobs of one shard; the others are counted.

    Every shard reports what is missing: the machine may lack a folder that the others have.
    """
    own = [job for job in jobs if shard.contains(job.name) or not may_exist(job.source)]
    tally.elsewhere = len(jobs) - len(own)
    return own


def to_do(jobs: Sequence[Job], skip_existing: bool, tally: Tally, listings: Listings) -> list[Job]:
    """Return the jobs to do; the others are reported or counted.

    Raises:
        ImageError: The results on a server can't be listed.
        click.UsageError: An image would go to the terminal, or nothing was asked for that could be
            done, whatever the files hold.
    """
    from agsr.engines.batch.plan import STREAM

    if jobs and all(job.is_request for job in jobs):
        raise click.UsageError("\n".join(printable(str(job.problem)) for job in jobs))

    todo, remote = [], _there_remotely(jobs, listings) if skip_existing else set()
    for job in jobs:
        if job.problem is not None:
            tell_error(job.problem, tally)
        elif job.target == STREAM and sys.stdout is not None and sys.stdout.isatty():
            raise click.UsageError(
                "an image would go to the terminal; name a file or redirect stdout"
            )
        elif skip_existing and job.target != STREAM and _is_there(job.target, remote):
            tally.existing += 1
            warn_of_doubts([job], "and is not replaced; --overwrite replaces it")
        else:
            todo.append(job)
    return todo


def warn_of_doubts(jobs: Sequence[Job], consequence: str = "and is replaced") -> None:
    """Warn of existing results that may be those of other inputs."""
    for job in jobs:
        if job.doubt is not None:
            text = f"warning: {job.doubt}, {consequence}; --suffix or -o results in both"
            click.echo(printable(text), err=True)


def _there_remotely(jobs: Sequence[Job], listings: Listings) -> set[Address]:
    targets = [job.target for job in jobs if isinstance(job.target, Address)]
    try:
        return listings.existing(targets)
    except OSError as error:
        raise ImageError(f"{error.filename}: can't be listed: {error.strerror}") from None


def _is_there(path: Location, remote: set[Address]) -> bool:
    """Return True if a result exists. Results appear complete, so an empty file doesn't count."""
    if isinstance(path, Address):
        return path in remote
    try:
        return path.stat().st_size > 0
    except OSError:  # of a name that is too long, too
        return False


@contextmanager
def summary_if_interrupted(tally: Tally, files: int) -> Iterator[None]:
    """Report how far a batch came and how to go on, when a signal or stdout's reader ends it.

    Raises:
        KeyboardInterrupt, OSError: After that.
    """
    try:
        yield
    except (KeyboardInterrupt, OSError):
        if files > 1:
            done = f"{tally.done} of {files} upscaled"
            click.echo(f"{done}; --skip-existing goes on with the rest", err=True)
        raise


def run_all(
    upscaler: Upscaler,
    jobs: Sequence[Job],
    options: InferOptions,
    encoding: Mapping[str, Any],
    tally: Tally,
    quiet: bool,
    weights: str,
) -> None:
    """Upscale images, then videos.

    Args:
        upscaler: Runs in the caller's thread.
        jobs: One at least; what comes from stdin may be either.
        options: Of images; their size and limit are those of videos, too.
        encoding: Codec, quality and preset of videos.
        tally: Counts results and errors.
        quiet: Show no progress.
        weights: What runs; a note names the weights for inputs with traces of compression, if there
            are any. Empty for no note: the user chose the weights, or the images hold data.
    """
    from agsr.engines.batch.plan import STREAM
    from agsr.engines.batch.stdio import Stdin

    videos, stdin = [job for job in jobs if job.is_video], None
    if jobs[0].source == jobs[0].target == STREAM:
        stdin = Stdin()
        if stdin.begins_y4m():
            videos = list(jobs)
        else:
            options = replace(options, stdin_head=stdin.head)
    images = [job for job in jobs if job not in videos]
    hinted = "" if quiet or weights == WEIGHTS_FOR_FAULTS else weights
    if images and hinted:
        _note_compression(images, hinted)
        options = replace(options, examine=partial(_note_stream, weights=hinted))
    if images:
        _run_images(upscaler, images, options, tally, quiet, alone=len(jobs) == 1)
    if videos:
        common = {name: getattr(options, name) for name in ("sizing", "strip", "max_pixels")}
        run_videos(upscaler, videos, {**common, **encoding}, tally, quiet, stdin, hinted)
    if not quiet:
        note_small(tally, len(jobs), options.sizing)


def run_pool(
    pool: WorkerPool,
    jobs: Sequence[Job],
    options: InferOptions,
    encoding: Mapping[str, Any],
    tally: Tally,
    quiet: bool,
    weights: str,
) -> None:
    """Upscale images and videos in the order of completion; otherwise like `run_all`.

    Raises:
        KeyboardInterrupt: After reporting what is saved.
    """
    videos = [job for job in jobs if job.is_video]
    images = [job for job in jobs if not job.is_video]
    hinted = "" if quiet or weights == WEIGHTS_FOR_FAULTS else weights
    if images and hinted:
        _note_compression(images, hinted)

    def outcomes(progress: BatchProgress) -> Iterator[Outcome]:
        def compressed(job: Job) -> None:
            if hinted:
                with progress.cleared():
                    note_compressed_video(job, hinted)

        return pool.process(
            [*images, *videos],
            options,
            progress.update,
            video_options=_video_options(options, encoding) if videos else None,
            compressed=compressed,
        )

    try:
        report_outcomes(outcomes, jobs, options.sizing, tally, quiet, alone=len(jobs) == 1)
    except KeyboardInterrupt:
        for job in videos:
            report_what_is_saved(job)
        raise
    if not quiet:
        note_small(tally, len(jobs), options.sizing)


def _video_options(options: InferOptions, encoding: Mapping[str, Any]) -> Any:
    from agsr.engines.video import VideoOptions

    common = {name: getattr(options, name) for name in ("sizing", "strip", "max_pixels")}
    return VideoOptions(**common, **encoding)


def _run_images(
    upscaler: Upscaler,
    jobs: Sequence[Job],
    options: InferOptions,
    tally: Tally,
    quiet: bool,
    *,
    alone: bool,
) -> None:
    from agsr.engines.batch.runner import process

    def outcomes(progress: BatchProgress) -> Iterator[Outcome]:
        return process(upscaler, jobs, options, progress.update)

    report_outcomes(outcomes, jobs, options.sizing, tally, quiet, alone=alone)


def _note_compression(jobs: Sequence[Job], weights: str) -> None:
    """Print which weights are made for inputs with traces of compression, if there are any."""
    from agsr.engines.batch.headers import file_compression
    from agsr.system.quiet_stderr import quiet_decoders

    with quiet_decoders():
        files = [job.source for job in jobs[:MOST_EXAMINED]]
        found = [(file, kind) for file in files if (kind := file_compression(file)) and kind.strong]
    if not found:
        return
    file, kind = found[0]
    first = f"{file.name}: {kind}"
    if len(jobs) == 1:
        which = f"the input has traces of compression ({kind})"
    elif len(found) == 1:
        which = f"1 of {len(jobs)} inputs has traces of compression ({first})"
    else:
        which = f"{len(found)} of {len(jobs)} inputs have traces of compression ({first}, …)"
    _note(which, weights)


def _note_stream(content: bytes, weights: str) -> None:
    """`_note_compression` for an image from stdin."""
    from agsr.image.compression import detect_compression

    kind = detect_compression(io.BytesIO(content))
    if kind is not None and kind.strong:
        _note(f"the input has traces of compression ({kind})", weights)


def _note(which: str, weights: str) -> None:
    click.echo(printable(compression_note(which, weights)), err=True)
