"""What ``agsr infer`` has for videos: their options, their progress, and the run of one file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from agsr.errors import VideoError, printable
from agsr.media import CODECS
from agsr.options import echo_error, echo_path

if TYPE_CHECKING:
    from agsr.engines.jobs import Job
    from agsr.engines.standard_streams import Stdin
    from agsr.engines.upscaler import Upscaler
    from agsr.engines.video import Progress, VideoOptions

SECTION = {"Video": ("codec", "crf", "preset")}
"""As the help groups the options."""


def video_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of encoders."""
    for option in (
        click.option("--preset", help="The encoder's own word for how much time it takes."),
        click.option(
            "--crf",
            type=click.IntRange(0, 63),
            help="Smaller is better. [default: visually lossless; h264 16, hevc 18]",
        ),
        click.option(
            "--codec",
            type=click.Choice(CODECS),
            help="[default: h264; above 8 bits hevc; in .webm vp9]",
        ),
    ):
        command = option(command)
    return command


def run_videos(
    upscaler: Upscaler,
    jobs: Sequence[Job],
    wishes: Mapping[str, Any],
    quiet: bool,
    stdin: Stdin | None = None,
) -> int:
    """Upscale videos, one after the other; prints results and errors. Returns the errors' number.

    Args:
        upscaler: Runs in the caller's thread.
        jobs: With videos as results.
        wishes: Arguments of `agsr.engines.video.VideoOptions`.
        quiet: Show no progress.
        stdin: Where it was begun to be read.

    Raises:
        KeyboardInterrupt: After saying what is kept.
    """
    if not jobs:
        return 0
    from agsr.engines.video import VideoOptions
    from agsr.image import quiet_decoders

    options, failed = VideoOptions(**wishes), 0
    with quiet_decoders():
        for job in jobs:
            failed += not _run_one(upscaler, job, options, quiet, stdin)
    return failed


def _run_one(
    upscaler: Upscaler, job: Job, options: VideoOptions, quiet: bool, stdin: Stdin | None
) -> bool:
    """Whether a video was upscaled."""
    from agsr.engines.jobs import STREAM
    from agsr.engines.pipeline import reason_of
    from agsr.engines.raw_stream import stream_video
    from agsr.engines.standard_streams import Stdin, Stdout
    from agsr.engines.video import upscale_video

    source = (stdin or Stdin()) if job.source == STREAM else job.source
    try:
        if isinstance(source, Stdin) and not source.begins_y4m() and not source.head:
            raise VideoError("-: nothing came from stdin (0 bytes)")
        with _progress(quiet) as update:
            if job.target == STREAM:
                stream_video(upscaler, source, Stdout(), options, update)
            else:
                upscale_video(upscaler, source, job.target, options, update)
    except KeyboardInterrupt:
        _tell_what_is_kept(job)
        raise
    except Exception as error:  # whatever it is, it costs one file
        echo_error(reason_of(job, error))
        return False
    if job.target != STREAM:
        echo_path(job.target)
    return True


def _tell_what_is_kept(job: Job) -> None:
    from agsr.engines.segments import finished

    count = finished(job.target)
    if count:
        told = f"{job.target}: {count} finished segments are kept; the same command goes on there"
        click.echo(printable(told), err=True)


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """A bar over the frames of a video, on terminals only."""
    from agsr.console_infer import shows_bars

    if quiet or not shows_bars():
        yield lambda _: None
        return
    from agsr.console_bar import frames_bar

    with frames_bar() as bar:
        pace = Pace()

        def update(progress: Progress) -> None:
            told = pace.told(progress)
            bar.update(bar.task_ids[0], completed=progress.done, total=progress.total, told=told)

        yield update


class Pace:
    """How fast frames are made, without those that an earlier run made.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began: float | None = None

    def told(self, progress: Progress) -> str:
        """Frames, rate and the time that is left: ``48/250 frames  1.20 frames/s  2:48 left``."""
        frames = f"{int(progress.done)}/{progress.total or '?'} frames"
        made = progress.done - progress.kept
        if self._began is None or made <= 0:
            self._began = self._clock()
            return frames
        seconds = self._clock() - self._began
        if seconds <= 0:
            return frames
        rate = made / seconds
        left = (progress.total or 0) - progress.done
        still = f"  {_span(left / rate)}" if progress.total else ""
        return f"{frames}  {rate:.2f} frames/s{still}"


def _span(seconds: float) -> str:
    minutes, seconds = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02} left" if hours else f"{minutes}:{seconds:02} left"
