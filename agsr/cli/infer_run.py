"""What ``agsr infer`` does with its jobs: what runs them, and the notes before that.

`agsr.cli.infer_report` prints and counts what comes of them.
"""

from __future__ import annotations

import io
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from agsr.cli.infer_report import note_small, report_outcomes
from agsr.cli.infer_video import (
    compression_note,
    note_compressed_video,
    report_what_is_saved,
    run_videos,
)
from agsr.pretrained import WEIGHTS_FOR_FAULTS
from agsr.system.text import printable

if TYPE_CHECKING:
    from agsr.cli.network import AnyPool
    from agsr.cli.output.infer import BatchProgress, Tally
    from agsr.engines.batch.outcome import InferOptions, Outcome
    from agsr.engines.batch.plan import Job
    from agsr.engines.upscaler import Upscaler

MOST_EXAMINED = 1000
"""Files whose compression is looked up before the work begins."""


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
    finally:
        tally.flush()


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
    images = [job for job in jobs if not job.is_video]
    if jobs[0].source == jobs[0].target == STREAM:
        stdin = Stdin()
        if stdin.begins_y4m():
            videos, images = list(jobs), []
        else:
            options = replace(options, stdin_head=stdin.head)
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
    pool: AnyPool,
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

    def outcomes(progress: BatchProgress) -> Generator[Outcome]:
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

    def outcomes(progress: BatchProgress) -> Generator[Outcome]:
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
