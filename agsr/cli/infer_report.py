"""What ``agsr infer`` prints while results come, and after: paths, errors, notes.

Data flow: `Outcome`s → stdout, stderr and the `Tally`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from agsr.cli.params import echo_error, echo_path
from agsr.image.ops.output_size import OutputSize

if TYPE_CHECKING:
    from agsr.cli.network import AnyPool
    from agsr.cli.output.infer import BatchProgress, Tally
    from agsr.engines.batch.outcome import Outcome
    from agsr.engines.batch.plan import Job
    from agsr.engines.upscaler import Upscaler


def report_outcomes(
    outcomes: Callable[[BatchProgress], Generator[Outcome]],
    jobs: Sequence[Job],
    sizing: OutputSize,
    tally: Tally,
    quiet: bool,
    *,
    alone: bool,
) -> None:
    """Upscale files; prints their results and errors, and counts them.

    Args:
        outcomes: Upscales the jobs.
        jobs: Files.
        sizing: Size that was asked for.
        tally: Counts results and errors.
        quiet: Show no progress.
        alone: Whether there is no other file in this run.
    """
    from agsr.cli.output.infer import BatchProgress
    from agsr.engines.batch.headers import estimate_work
    from agsr.engines.batch.plan import STREAM
    from agsr.system.quiet_stderr import quiet_decoders

    began = time.monotonic()
    work = [1.0] * len(jobs) if quiet else estimate_work([job.source for job in jobs])
    with quiet_decoders(), BatchProgress(work, quiet) as progress:

        def count(outcome: Outcome) -> None:
            if tally.manifest is not None:
                tally.manifest.add(outcome)
            tally.failed += outcome.error is not None
            if outcome.size is not None:
                _count(outcome, outcome.size, sizing, tally, alone)

        def show(outcome: Outcome) -> None:
            with progress.cleared():
                if outcome.error is not None:
                    echo_error(outcome.error)
                elif outcome.job.target != STREAM:
                    echo_path(outcome.job.target)
                if outcome.size is not None and alone and not quiet and not outcome.job.is_video:
                    _note_size(outcome.size, sizing)

        _report_all(outcomes(progress), count, show)
    if not tally.videos:  # rates of images and videos can't be compared
        tally.seconds = time.monotonic() - began


def _report_all(
    made: Generator[Outcome],
    count: Callable[[Outcome], None],
    show: Callable[[Outcome], None],
) -> None:
    """Report outcomes, and those that are complete when a signal interrupts the report of one.

    Raises:
        KeyboardInterrupt: After that.
    """
    hidden: Outcome | None = None
    try:
        for outcome in made:
            hidden = outcome
            count(outcome)
            show(outcome)
            hidden = None
    except KeyboardInterrupt as signal:
        if hidden is not None:
            show(hidden)
        with suppress(StopIteration):
            outcome = made.throw(signal)  # the generator yields what is complete, then raises
            while True:
                count(outcome)
                show(outcome)
                outcome = next(made)
        raise


def _count(
    outcome: Outcome, size: tuple[int, int], sizing: OutputSize, tally: Tally, alone: bool
) -> None:
    height, width = size
    tally.done += 1
    if outcome.job.is_video:
        tally.videos += 1
        tally.small += not sizing.reached(height + 1, width + 1)  # since sides are made even
        return
    tally.pixels += height * width
    tally.alpha += outcome.alpha
    tally.small += not alone and not sizing.reached(height, width)


def _note_size(size: tuple[int, int], sizing: OutputSize) -> None:
    """Print a result's size where it is not the one that was asked for."""
    (height, width), box = size, sizing.box
    if box is None or box == (width, height):
        return
    if not sizing.reached(height, width):
        why = f": {sizing.most} times the input is the most"
    elif box[0] == box[1]:  # --max-size
        return
    else:
        why = f", which fit inside {box[0]}x{box[1]}"
    click.echo(f"note: the result has {width}x{height} pixels{why}", err=True)


def tell_error(message: str, tally: Tally) -> None:
    """Print and count the failure of a file."""
    tally.failed += 1
    echo_error(message)


def note_small(tally: Tally, files: int, sizing: OutputSize) -> None:
    """Print how many results are smaller than was asked for."""
    if not tally.small:
        return
    which = "the result is" if files == 1 else f"{tally.small} of {files} results are"
    what = f"{which} smaller than was asked for: {sizing.most} times the input is the most"
    click.echo(f"note: {what}", err=True)


def note_no_effect(upscaler: Upscaler | AnyPool, given: Collection[str], tally: Tally) -> None:
    """Print which options changed nothing, where only the images could show it.

    Args:
        upscaler: After its work.
        given: Names of the options that the user gave.
        tally: Of the results.
    """
    if not tally.done - tally.videos:
        return
    if "separate_alpha" in given and not tally.alpha:
        click.echo("note: --separate-alpha had no effect: no input has alpha", err=True)
    if "halo" in given and not upscaler.shows_halo:
        click.echo("note: --halo had no effect: no input was cut into tiles", err=True)


def note_seams(upscaler: Upscaler | AnyPool) -> None:
    """Print how much blended tiles differed, if there were any."""
    if upscaler.seams.difference:
        click.echo(f"note: {upscaler.seams}", err=True)
