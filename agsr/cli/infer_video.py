"""What ``agsr infer`` has for videos: their options, their progress, and the run of one file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from agsr.cli.param_types import AliasChoice
from agsr.cli.params import echo_error, echo_path
from agsr.errors import VideoError, check_any
from agsr.pretrained import WEIGHTS_FOR_FAULTS
from agsr.system.progress import Progress, ProgressCallback
from agsr.system.text import counted_are, printable
from agsr.video.formats import CODECS, WRITABLE

if TYPE_CHECKING:
    from agsr.cli.output.infer import Tally
    from agsr.engines.batch.outcome import Outcome
    from agsr.engines.batch.plan import Job
    from agsr.engines.batch.stdio import Stdin
    from agsr.engines.upscaler import Upscaler
    from agsr.engines.video import VideoOptions

CODEC_ALIASES = {
    **dict.fromkeys(("avc", "avc1", "h.264", "x264", "libx264"), "h264"),
    **dict.fromkeys(("h265", "h.265", "x265", "libx265", "hvc1", "hev1"), "hevc"),
    **dict.fromkeys(("av01", "svtav1", "svt-av1", "libsvtav1", "libaom-av1"), "av1"),
    **dict.fromkeys(("vp09", "libvpx-vp9"), "vp9"),
    "prores_ks": "prores",
}
"""Other names of codecs."""

SECTION = {"Video": ("codec", "crf", "preset")}
"""As the help groups the options."""


def video_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of encoders."""
    for option in (
        click.option(
            "--preset",
            help="How much time the encoder takes, in its own words: ultrafast to veryslow for "
            "h264 and hevc, 0 (slow) to 8 (fast) for vp9, to 13 for av1. [default: medium; vp9 2, "
            "av1 6]",
        ),
        click.option(
            "--crf",
            type=click.IntRange(0, 63),
            help="Quality: smaller is better, up to 51 for h264 and hevc. [default: visually "
            "lossless: h264 16, hevc 18, vp9 18, av1 20]",
        ),
        click.option(
            "--codec",
            type=AliasChoice(CODECS, CODEC_ALIASES),
            help="x264 and x265 are h264 and hevc. [default: h264; above 8 bits hevc; in .webm "
            "vp9]",
        ),
    ):
        command = option(command)
    return command


def check_encodings(jobs: Sequence[Job], encoding: Mapping[str, Any]) -> None:
    """Reject options of encoders that suit none of the results, whatever the sources are.

    Args:
        jobs: With the names of the results.
        encoding: Codec, crf and preset; None where not given.

    Raises:
        EncodingRequestError: They suit none of the containers.
    """
    from agsr.engines.batch.plan import STREAM
    from agsr.system.quiet_stderr import quiet_decoders
    from agsr.video.request import check_encoding

    results = {
        WRITABLE[job.extension.lower()]: job.target
        for job in jobs
        if job.extension.lower() in WRITABLE and job.target != STREAM
    }
    if not results:
        return
    with quiet_decoders(throughout=True):
        check_any(
            partial(check_encoding, str(target), form, **encoding)
            for form, target in results.items()
        )


def run_videos(
    upscaler: Upscaler,
    jobs: Sequence[Job],
    wishes: Mapping[str, Any],
    tally: Tally,
    quiet: bool,
    stdin: Stdin | None = None,
    weights: str = "",
) -> None:
    """Upscale videos, one after the other; prints results and errors.

    Args:
        upscaler: Runs in the caller's thread.
        jobs: With videos as results.
        wishes: Arguments of `agsr.engines.video.VideoOptions`.
        tally: Counts results and errors.
        quiet: Show no progress.
        stdin: Where it was begun to be read.
        weights: Their name, for a note on sources that other weights suit better; empty for none.

    Raises:
        KeyboardInterrupt: After reporting what is saved.
    """
    from agsr.engines.video import VideoOptions
    from agsr.system.quiet_stderr import quiet_decoders

    options = VideoOptions(**wishes)
    with quiet_decoders(throughout=True):
        for job in jobs:
            outcome = _run_one(upscaler, job, options, quiet, stdin, weights)
            size = outcome.size
            if tally.manifest is not None:
                tally.manifest.add(outcome)
            if size is None:
                tally.failed += 1
                continue
            tally.done += 1
            tally.videos += 1
            # One more, since sides are made even.
            tally.small += not options.sizing.reached(size[0] + 1, size[1] + 1)


def _run_one(
    upscaler: Upscaler,
    job: Job,
    options: VideoOptions,
    quiet: bool,
    stdin: Stdin | None,
    weights: str,
) -> Outcome:
    """Upscale a video; prints its result or error."""
    from agsr.engines.batch.outcome import Outcome, reason_of
    from agsr.engines.batch.plan import STREAM
    from agsr.engines.batch.stdio import Stdin, Stdout
    from agsr.engines.video import upscale_video
    from agsr.engines.video.y4m import stream_video
    from agsr.store.locations import local

    source = (stdin or Stdin()) if job.source == STREAM else local(job.source)

    def note() -> None:
        if weights:
            note_compressed_video(job, weights)

    try:
        if isinstance(source, Stdin) and not source.begins_y4m() and not source.head:
            raise VideoError("-: stdin is empty (0 bytes)")
        with _progress(str(job.source), quiet) as update:
            if job.target == STREAM:
                size = stream_video(upscaler, source, Stdout(), options, update, note)
            else:
                size = upscale_video(upscaler, source, local(job.target), options, update, note)
    except KeyboardInterrupt:
        report_what_is_saved(job)
        raise
    except Exception as error:  # whatever it is, it costs one file
        reason = reason_of(job, error)
        echo_error(reason)
        return Outcome(job, reason, type(error))
    if job.target != STREAM:
        echo_path(job.target)
    return Outcome(job, size=size)


def note_compressed_video(job: Job, weights: str) -> None:
    """Print which weights suit a strongly compressed video better."""
    note = compression_note(f"{job.source} has traces of compression", weights)
    click.echo(printable(note), err=True)


def compression_note(which: str, weights: str) -> str:
    """Return the note on compressed inputs: ``which`` names them and says what they have."""
    return (
        f"note: {which}, which {weights} enlarges, too; -w {WEIGHTS_FOR_FAULTS} was trained to "
        "remove them"
    )


def report_what_is_saved(job: Job) -> None:
    """Print how many frames of an interrupted video are saved, if any."""
    from agsr.engines.video.segments import saved_frames
    from agsr.store.locations import local

    count = saved_frames(local(job.target))
    if count:
        frames = counted_are(count, "frame")
        text = f"{job.target}: {frames} saved; run the same command again to continue from there"
        click.echo(printable(text), err=True)


@contextmanager
def _progress(name: str, quiet: bool) -> Iterator[ProgressCallback]:
    """A bar over the frames of a video on terminals; elsewhere a line now and then."""
    from agsr.cli.output.infer import shows_bars

    if quiet or not shows_bars():
        yield (lambda _: None) if quiet else Lines(name).update
        return
    from agsr.cli.output.bars import frames_bar

    with frames_bar() as bar:
        pace = Pace()

        def update(progress: Progress) -> None:
            text = pace.describe(progress)
            bar.update(bar.task_ids[0], completed=progress.done, total=progress.total, text=text)

        yield update


class Lines:
    """How far a video is, where there is no terminal: a line now and then on stderr.

    Args:
        name: Of the video.
        clock: Seconds.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name, self._clock, self._pace = name, clock, Pace(clock)
        self._printed = clock()

    def update(self, progress: Progress) -> None:
        """Print a line, if the last one was long ago."""
        from agsr.cli.output.infer import LINE_EVERY

        line, now = self._pace.describe(progress), self._clock()
        if now - self._printed >= LINE_EVERY:
            self._printed = now
            click.echo(printable(f"{self._name}: {line}"), err=True)


class Pace:
    """How fast frames are made, without those that an earlier run made.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began: float | None = None

    def describe(self, progress: Progress) -> str:
        """Frames, rate and the time that is left: ``48/250 frames  1.20 frames/s  3 min left``."""
        from agsr.cli.output.infer import duration

        frames = f"{int(progress.done)}/{progress.total or '?'} frames"
        made = progress.done - progress.reused
        if self._began is None or made <= 0:
            self._began = self._clock()
            return frames
        seconds = self._clock() - self._began
        if seconds <= 0:
            return frames
        rate = made / seconds
        left = (progress.total or 0) - progress.done
        still = f"  {duration(max(left, 0) / rate)} left" if progress.total else ""
        return f"{frames}  {rate:.2f} frames/s{still}"
