"""Upscale a video file: every frame by the `Upscaler`, in resumable segments.

Separate threads decode and encode a few frames ahead and behind. Encoded frames are saved in
segments (`agsr.engines.video.segment_writer`), so an interrupted run can be resumed; at the end the
segments are joined with the source's other streams (`agsr.video.mux`).
"""

from __future__ import annotations

import errno
import logging
import secrets
from array import array
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from agsr._version import __version__
from agsr.engines.concurrency import BackgroundWriter
from agsr.engines.preflight import check_video_target
from agsr.engines.upscaler import Upscaler
from agsr.engines.video.frames import AHEAD, OpenSource, open_source, upscaled_frames
from agsr.engines.video.options import VideoOptions
from agsr.engines.video.segment_writer import Result, SegmentWriter
from agsr.engines.video.segments import (
    LENGTH,
    Segments,
    content_hash,
    open_segments,
    remove_segments,
    saved_frames,
)
from agsr.engines.video.xmp import with_xmp
from agsr.errors import VideoError
from agsr.system.atomic_file import complete_file
from agsr.system.progress import ProgressCallback
from agsr.system.text import counted_are
from agsr.video.encoder import Encoding, choose
from agsr.video.formats import WRITABLE
from agsr.video.mux import SegmentError, Timing, join, other_videos, segment_format
from agsr.video.packet_survey import Survey
from agsr.video.properties import VideoProperties
from agsr.video.reader import ByteSource, av, reason_of
from agsr.video.request import try_open
from agsr.video.stream_copy import Plan
from agsr.video.trial import run_trial

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error codes of a full disk or quota."""

_log = logging.getLogger(__name__)


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
    options = (options or VideoOptions()).for_network(upscaler.info.scale)
    form = _form(target)
    check_video_target(source if isinstance(source, Path) else None, target)
    with open_source(upscaler, source, options) as opened:
        properties = opened.video.properties
        encoding, lost = _encoding(properties, target, form, options)
        plan = _plan(source, properties, encoding, target, form, options, opened.seen, lost)
        if opened.is_strongly_compressed:
            blocky()
        made_of = _identity(upscaler, source, encoding, options)
        with open_segments(target, made_of, segment_format(encoding)) as segments:
            try:
                timing = _make(upscaler, opened, encoding, segments, options, progress)
                _complete(segments, timing, encoding, target, plan, source, options)
            except (av().error.FFmpegError, OSError) as error:
                if not isinstance(error, av().error.FFmpegError) and error.errno not in _FULL:
                    raise
                raise VideoError(_unwritten(target, error)) from None
            finally:
                if not isinstance(source, Path):
                    remove_segments(segments)  # a stream can't be resumed
    return encoding.height, encoding.width


def _form(target: Path) -> str:
    if target.suffix.lower() not in WRITABLE:
        raise VideoError(
            f"{target}: can't write {target.suffix or 'a video without suffix'}; expected one of "
            f"{' '.join(WRITABLE)}, or - for YUV4MPEG2 to stdout"
        )
    return WRITABLE[target.suffix.lower()]


def _encoding(
    properties: VideoProperties, target: Path, form: str, options: VideoOptions
) -> tuple[Encoding, list[str]]:
    """Choose and test the encoding; return it with messages about losses."""
    size = replace(options.sizing, multiple=2).result(*properties.shown_size)
    requested = {"codec": options.codec, "crf": options.crf, "preset": options.preset}
    encoding, lost = choose(properties, size, form, **requested)  # type: ignore[arg-type]
    try_open(encoding, form, str(target))
    return encoding, lost


def _plan(
    source: Path | ByteSource,
    properties: VideoProperties,
    encoding: Encoding,
    target: Path,
    form: str,
    options: VideoOptions,
    seen: Survey,
    lost: list[str],
) -> Plan:
    """Plan the other contents of the result, test the plan, and warn of all losses.

    Raises:
        VideoError: The container rejects even the picture.
    """
    origin, name = (source, str(source)) if isinstance(source, Path) else (None, "-")
    plan = Plan(form=form, strip=options.strip)
    try:
        trial = run_trial(origin, encoding, plan, seen.first, options.max_pixels)
    except (av().error.FFmpegError, ValueError) as error:
        raise VideoError(f"{target}: can't be written: {reason_of(error)}") from None
    sides = [text for kind, text in properties.sides.items() if kind not in trial.sides]
    for text in (*properties.warnings, *sides, *lost, *trial.lost):
        _log.warning("%s: %s", name, text)
    if origin is None:
        return trial.plan
    planned, xmp_warning = with_xmp(trial.plan, origin, properties, encoding)
    if xmp_warning:
        _log.warning("%s: %s", name, xmp_warning)
    for index in other_videos(origin, options.max_pixels):
        if index in planned.copied:
            _log.warning("%s: stream %d, another video, is copied without upscaling", name, index)
    return planned


def _identity(
    upscaler: Upscaler, source: Path | ByteSource, encoding: Encoding, options: VideoOptions
) -> Mapping[str, Any]:
    """Return everything that the segments depend on."""
    library = av()
    return {
        "input": content_hash(source) if isinstance(source, Path) else secrets.token_hex(8),
        "network": asdict(replace(upscaler.info, reason="")),  # which doesn't affect the result
        "tiling": upscaler.tiling,
        "sizing": asdict(options.sizing),
        "encoding": asdict(encoding),
        "segment": LENGTH,
        "versions": [__version__, library.__version__, library.library_versions],
    }


def _make(
    upscaler: Upscaler,
    source: OpenSource,
    encoding: Encoding,
    segments: Segments,
    options: VideoOptions,
    progress: ProgressCallback,
) -> Timing:
    """Compute the missing segments; return the presentation times."""
    sizing = replace(options.sizing, multiple=2)
    usual = last = source.video.properties.usual_duration
    times = array("q")
    done = {**segments.done, **segments.computed}
    with (
        SegmentWriter(encoding, segments, resumable=source.total is not None) as writer,
        BackgroundWriter(writer.add, AHEAD, finishes=True) as write,
        closing(
            upscaled_frames(upscaler, source, sizing, progress, done, encoding.alpha)
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


def _complete(
    segments: Segments,
    timing: Timing,
    encoding: Encoding,
    target: Path,
    plan: Plan,
    source: Path | ByteSource,
    options: VideoOptions,
) -> None:
    parts = segments.in_order(len(timing.times))
    origin = source if isinstance(source, Path) else None
    try:
        with complete_file(target) as temporary:
            join(parts, timing, encoding, temporary, plan, origin, options.max_pixels)
    except SegmentError as error:
        segments.remove(error.path)
        raise
    remove_segments(segments)


def _unwritten(target: Path, error: Exception) -> str:
    count = saved_frames(target)
    frames = counted_are(count, "frame")
    saved = f"; {frames} saved; the same command continues there" if count else ""
    return f"{target}: can't be written: {reason_of(error)}{saved}"
