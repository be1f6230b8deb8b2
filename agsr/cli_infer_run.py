"""What ``agsr infer`` does with its jobs: which are left to do, what runs them, what came of them.

Results' paths go to stdout, errors to stderr, and both are counted in the `Tally`.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agsr.catalog import WEIGHTS_FOR_FAULTS, shipped_names
from agsr.cli_video import run_videos
from agsr.errors import printable
from agsr.options import echo_error, echo_path, open_upscaler

if TYPE_CHECKING:
    from agsr.console_infer import Tally
    from agsr.engines.jobs import Job
    from agsr.engines.pipeline import InferOptions
    from agsr.engines.upscaler import Upscaler


def count_left_out(path: Path, source: Path, tally: Tally, verbose: bool) -> None:
    """Count an input that is a result of ``source``; with ``verbose``, name it on stderr."""
    tally.left_out += 1
    if verbose:
        click.echo(printable(f"{path}: left out as a result of {source}"), err=True)


def count_unread(path: Path, tally: Tally, verbose: bool) -> None:
    """Count a picture of a kind that can't be read; with ``verbose``, name it on stderr."""
    tally.unread += 1
    if verbose:
        click.echo(printable(f"{path}: left out, since {path.suffix} is not read"), err=True)


def to_do(jobs: Sequence[Job], skip_existing: bool, tally: Tally) -> list[Job]:
    """The jobs that can be done and have to; the others are told or counted.

    Raises:
        click.UsageError: An image would go to the terminal.
    """
    from agsr.engines.jobs import STREAM

    todo = []
    for job in jobs:
        if job.problem is not None:
            _tell_error(job.problem, tally)
        elif job.target == STREAM and sys.stdout is not None and sys.stdout.isatty():
            raise click.UsageError(
                "an image would go to the terminal; name a file or redirect stdout"
            )
        elif skip_existing and job.target != STREAM and _is_there(job.target):
            tally.existing += 1
        else:
            todo.append(job)
    return todo


def _is_there(path: Path) -> bool:
    """Whether a result is: results appear complete, so an empty file is none of them."""
    try:
        return path.stat().st_size > 0
    except OSError:  # of a name that is too long, too
        return False


def opened(jobs: Sequence[Job], verbose: bool, **running: Any) -> Upscaler:
    """The upscaler for a plan's jobs; with ``verbose``, stderr tells what it is.

    For all of them, done before or not: a run that goes on takes what the first one took.
    """
    from agsr.engines.headers import count_pixels

    if verbose and logging.lastResort is not None:
        logging.getLogger("agsr").setLevel(logging.INFO)
        logging.lastResort.setLevel(logging.INFO)
    started = time.perf_counter()
    upscaler = open_upscaler(work=count_pixels([job.source for job in jobs]), **running)
    if verbose:
        told = f"{upscaler.info.summary}, in {time.perf_counter() - started:.2f} s"
        click.echo(f"{told}: {upscaler.info.reason}", err=True)
    return upscaler


@contextmanager
def told_if_interrupted(tally: Tally, files: int) -> Iterator[None]:
    """Say on stderr how far it came and how to go on, when Ctrl-C or SIGTERM end a batch.

    Raises:
        KeyboardInterrupt: After that.
    """
    try:
        yield
    except KeyboardInterrupt:
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
        weights: What runs; of compressed inputs it is told if other weights are made for them.
            Empty where it isn't to be, as for textures that hold data.
    """
    from agsr.engines.jobs import STREAM
    from agsr.engines.standard_streams import Stdin

    videos, stdin = [job for job in jobs if job.is_video], None
    if jobs[0].source == jobs[0].target == STREAM:
        stdin = Stdin()
        if stdin.begins_y4m():
            videos = list(jobs)
        else:
            options = replace(options, stdin_head=stdin.head)
    images = [job for job in jobs if job not in videos]
    done = _run_images(upscaler, images, options, tally, quiet) if images else []
    if videos:
        common = {name: getattr(options, name) for name in ("sizing", "strip", "max_pixels")}
        hinted = (
            "" if quiet or weights not in set(shipped_names()) - {WEIGHTS_FOR_FAULTS} else weights
        )
        run_videos(upscaler, videos, {**common, **encoding}, tally, quiet, stdin, hinted)
    if tally.small and not quiet:
        click.echo(_too_small(tally.small, len(jobs)), err=True)
    if not quiet and weights in set(shipped_names()) - {WEIGHTS_FOR_FAULTS}:
        _tell_blocky(done, len(images), weights)


def _run_images(
    upscaler: Upscaler, jobs: Sequence[Job], options: InferOptions, tally: Tally, quiet: bool
) -> list[Job]:
    """Upscale files; prints their results and errors, and counts them. Those that have results."""
    from agsr.console_infer import BatchProgress
    from agsr.engines.jobs import STREAM
    from agsr.engines.pipeline import process
    from agsr.image import quiet_decoders

    began, done = time.monotonic(), []
    with quiet_decoders(), BatchProgress(len(jobs), quiet) as progress:
        for outcome in process(upscaler, jobs, options, progress.update):
            with progress.cleared():
                if outcome.error is not None:
                    _tell_error(outcome.error, tally)
                elif outcome.job.target != STREAM:
                    echo_path(outcome.job.target)
            if outcome.size is not None:
                done.append(outcome.job)
                tally.done += 1
                tally.pixels += outcome.size[0] * outcome.size[1]
                tally.small += not options.sizing.reached(*outcome.size)
    tally.seconds = time.monotonic() - began
    return done


def _tell_error(message: str, tally: Tally) -> None:
    tally.failed += 1
    echo_error(message)


def _too_small(count: int, files: int) -> str:
    which = "the result is" if files == 1 else f"{count} of {files} results are"
    return f"note: {which} smaller than was asked for: four times the input is the most"


def _tell_blocky(done: Sequence[Job], files: int, weights: str) -> None:
    """Say which weights are made for inputs that are strongly compressed, if there are any."""
    from agsr.engines.headers import jpeg_quality
    from agsr.image import quiet_decoders
    from agsr.jpeg import BLOCKY

    with quiet_decoders():
        qualities = [jpeg_quality(job.source) for job in done]
    count = sum(quality is not None and quality <= BLOCKY for quality in qualities)
    if not count:
        return
    kind = "is a JPEG file" if count == 1 else "are JPEG files"
    which = f"the input {kind}" if files == 1 else f"{count} of {files} inputs {kind}"
    click.echo(
        f"note: {which} of quality {BLOCKY} or less, and {weights} enlarges the traces of "
        f"compression, too; -w {WEIGHTS_FOR_FAULTS} was trained to take them out",
        err=True,
    )
