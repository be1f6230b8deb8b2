"""Upscale a video file: every frame by the `Upscaler`, in resumable segments.

Separate threads decode and encode a few frames ahead and behind. Encoded frames are saved in
segments (`agsr.engines.video.segment_writer`), so an interrupted run can be resumed; at the end the
segments are joined with the source's other streams (`agsr.video.mux`).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from agsr.engines.concurrency import BackgroundWriter
from agsr.engines.upscaler import Upscaler
from agsr.engines.video.frames import AHEAD, upscaled_frames
from agsr.engines.video.options import VideoOptions
from agsr.engines.video.preparation import Preparation, prepared
from agsr.engines.video.segment_writer import Result, SegmentWriter
from agsr.system.progress import ProgressCallback
from agsr.video.mux import Timing
from agsr.video.reader import ByteSource


def upscale_video(
    upscaler: Upscaler,
    source: Path | ByteSource,
    target: Path,
    options: VideoOptions | None = None,
    progress: ProgressCallback = lambda _: None,
    blocky: Callable[[], None] = lambda: None,
) -> tuple[int, int]:
    """Upscale a video file.

    An interrupted call resumes when repeated with the same arguments: segments and computed frames
    are saved in a folder beside ``target`` until it is complete.

    Args:
        upscaler: Runs in the caller's thread.
        source: A file, or a YUV4MPEG2 stream, which can't be resumed.
        target: The result; its ending selects MP4, MOV, MKV or WebM.
        options: Size and encoding.
        progress: Called after each tile, and for reused frames.
        blocky: Called before the work if the source is strongly compressed.

    Returns:
        Height and width of the result.

    Raises:
        VideoError: The source can't be read or decoded completely, or the result can't be written
            as requested.
        BackendError, MemoryError: As for images.
    """
    options = options or VideoOptions()
    with prepared(upscaler.facts, source, target, options, blocky) as work:
        work.complete(_make(upscaler, work, progress))
    return work.encoding.height, work.encoding.width


def _make(upscaler: Upscaler, work: Preparation, progress: ProgressCallback) -> Timing:
    """Compute the missing segments; return the presentation times."""
    source, encoding, segments = work.opened, work.encoding, work.segments
    usual = last = source.video.properties.usual_duration
    times = array("q")
    done = {**segments.done, **segments.computed}
    with (
        SegmentWriter(encoding, segments, resumable=source.total is not None) as writer,
        BackgroundWriter(writer.add, AHEAD, finishes=True) as write,
        closing(
            upscaled_frames(upscaler, source, work.sizing, progress, done, encoding.alpha)
        ) as frames,
    ):
        for number, (frame, result) in enumerate(frames):
            times.append(frame.time)
            last = frame.duration or usual
            if segments.is_computed(number):
                write(Result(number, frame.time, None))
            elif not frame.finished and result is not None:
                write(Result(number, frame.time, result))
        write.finish()
        writer.end()
    return Timing(times, last)
