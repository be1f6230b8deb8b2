"""A video file in, a video file four times as large out: every frame by the `Upscaler`.

Frames are decoded ahead and encoded behind in threads of their own, a few at a time. What is
encoded is kept in segments (`agsr.engines.video.segment_writer`), so that a run that was broken off
goes on; at the end they are joined with everything else that is in the source (`agsr.video.mux`).
"""

from __future__ import annotations

import errno
import logging
import secrets
from array import array
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from agsr._version import __version__
from agsr.engines.concurrency import BackgroundWriter, prefetch
from agsr.engines.preflight import check_disk_of_video, check_target
from agsr.engines.upscaler import Upscaler
from agsr.engines.video.frames import read_frames, upscaled
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
from agsr.errors import ImageError, VideoError
from agsr.image.decode import MAX_PIXELS
from agsr.image.ops.output_size import OutputSize
from agsr.system.atomic_file import complete_file
from agsr.video.compression import is_strongly_compressed
from agsr.video.encoder import Encoding, choose
from agsr.video.formats import WRITABLE
from agsr.video.mux import SegmentError, Timing, join, other_videos, segment_format
from agsr.video.packet_survey import Survey, survey
from agsr.video.properties import VideoFacts
from agsr.video.reader import Bytes, VideoSource, av, open_video, reason_of
from agsr.video.request import opened
from agsr.video.stream_copy import Plan
from agsr.video.trial import tried

_AHEAD = 2
"""Frames that are decoded, and that are encoded, while the network runs."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a disk, or a share of it, that is full."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """How a video is made."""

    sizing: OutputSize = field(default_factory=OutputSize)
    """Size of the result; sides are made even."""
    codec: str | None = None
    """One of `agsr.video.formats.CODECS`; None for what suits the container and the depth."""
    crf: int | None = None
    """The encoder's quality, smaller is better; None for visually lossless."""
    preset: str | None = None
    """How much time the encoder takes, in its own words."""
    strip: bool = False
    """Leave out titles, places and other metadata, and data streams; languages stay."""
    max_pixels: int = MAX_PIXELS
    """Videos with larger frames fail."""


@dataclass(frozen=True)
class Progress:
    """How far a video is."""

    done: float
    """Frames, with the share of the present one."""
    total: int | None
    """Frames of the video, where that is known."""
    kept: int
    """Frames of ``done`` that an earlier run has made."""


def upscale_video(
    upscaler: Upscaler,
    source: Path | Bytes,
    target: Path,
    options: VideoOptions | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    blocky: Callable[[], None] = lambda: None,
) -> tuple[int, int]:
    """Upscale a video file.

    Interrupted at any moment and called again with the same arguments, it continues: segments and
    computed frames lie in a folder beside ``target`` until that is complete.

    Args:
        upscaler: Runs in the caller's thread.
        source: A file; or where a YUV4MPEG2 stream comes from, which can't go on.
        target: The result, by its ending MP4, MOV, MKV or WebM.
        options: Size and encoding.
        progress: Called after each tile, and for frames that were already there.
        blocky: Called before the work if the source is strongly compressed.

    Returns:
        Height and width of the result.

    Raises:
        VideoError: The source can't be read or decoded to its end, or the result not be written as
            it is asked for.
        BackendError, MemoryError: As for images.
    """
    options = options or VideoOptions()
    name = str(source) if isinstance(source, Path) else "-"
    check_upscaler(upscaler, name)
    form = _form(target)
    _check_target(source, target)
    seen = survey(source, options.max_pixels) if isinstance(source, Path) else Survey(0)
    total = seen.frames if isinstance(source, Path) else None
    with closing(open_video(source, name, options.max_pixels)) as video:
        encoding, lost = _encoding(video.facts, target, form, options)
        plan = _plan(source, video.facts, encoding, target, form, options, seen, lost)
        if is_strongly_compressed(seen, video.facts):
            blocky()
        made_of = _identity(upscaler, source, encoding, options)
        with open_segments(target, made_of, segment_format(encoding)) as segments:
            try:
                timing = _make(upscaler, video, encoding, segments, options, (progress, total))
                _complete(segments, timing, encoding, target, plan, source, options)
            except (av().error.FFmpegError, OSError) as error:
                if not isinstance(error, av().error.FFmpegError) and error.errno not in _FULL:
                    raise
                raise VideoError(_unwritten(target, error)) from None
            finally:
                if not isinstance(source, Path):
                    remove_segments(segments)  # nobody can go on from them
    return encoding.height, encoding.width


def _check_target(source: Path | Bytes, target: Path) -> None:
    try:
        check_target(source if isinstance(source, Path) else None, target)
    except ImageError as error:
        raise VideoError(str(error)) from None
    if isinstance(source, Path):
        check_disk_of_video(source, target)


def _form(target: Path) -> str:
    if target.suffix.lower() not in WRITABLE:
        raise VideoError(
            f"{target}: can't write {target.suffix or 'a video without suffix'}; expected one of "
            f"{' '.join(WRITABLE)}, or - for YUV4MPEG2 to stdout"
        )
    return WRITABLE[target.suffix.lower()]


def _encoding(
    facts: VideoFacts, target: Path, form: str, options: VideoOptions
) -> tuple[Encoding, list[str]]:
    """How the result is encoded, tried out, and what of the source it can't hold."""
    size = replace(options.sizing, multiple=2).result(*facts.shown_size)
    wishes = {"codec": options.codec, "crf": options.crf, "preset": options.preset}
    encoding, lost = choose(facts, size, form, **wishes)  # type: ignore[arg-type]
    opened(encoding, form, str(target))
    return encoding, lost


def _plan(
    source: Path | Bytes,
    facts: VideoFacts,
    encoding: Encoding,
    target: Path,
    form: str,
    options: VideoOptions,
    seen: Survey,
    lost: list[str],
) -> Plan:
    """What the result contains besides the picture, tried out; warns of all that is lost.

    Raises:
        VideoError: The container refuses even the picture.
    """
    origin, name = (source, str(source)) if isinstance(source, Path) else (None, "-")
    plan = Plan(form=form, strip=options.strip)
    try:
        trial = tried(origin, encoding, plan, seen.first, options.max_pixels)
    except (av().error.FFmpegError, ValueError) as error:
        raise VideoError(f"{target}: can't be written: {reason_of(error)}") from None
    sides = [text for kind, text in facts.sides.items() if kind not in trial.sides]
    for text in (*facts.warnings, *sides, *lost, *trial.lost):
        _log.warning("%s: %s", name, text)
    if origin is None:
        return trial.plan
    planned, told = with_xmp(trial.plan, origin, facts, encoding)
    if told:
        _log.warning("%s: %s", name, told)
    for index in other_videos(origin, options.max_pixels):
        if index in planned.copied:
            _log.warning("%s: stream %d, another video, is copied at its size", name, index)
    return planned


def _identity(
    upscaler: Upscaler, source: Path | Bytes, encoding: Encoding, options: VideoOptions
) -> Mapping[str, Any]:
    """All that the segments depend on."""
    library = av()
    return {
        "input": content_hash(source) if isinstance(source, Path) else secrets.token_hex(8),
        "network": asdict(replace(upscaler.info, reason="")),  # why it runs changes nothing
        "tiling": upscaler.tiling,
        "sizing": asdict(options.sizing),
        "encoding": asdict(encoding),
        "segment": LENGTH,
        "versions": [__version__, library.__version__, library.library_versions],
    }


def _make(
    upscaler: Upscaler,
    video: VideoSource,
    encoding: Encoding,
    segments: Segments,
    options: VideoOptions,
    told: tuple[Callable[[Progress], None], int | None],
) -> Timing:
    """Make the segments that are not yet there; returns when which frame is shown."""
    sizing = replace(options.sizing, multiple=2)
    times, last, kept = array("q"), video.facts.usual_duration, 0
    result: NDArray[Any] | None = None
    done = {**segments.done, **segments.computed}
    with (
        SegmentWriter(encoding, segments, resumable=told[1] is not None) as writer,
        BackgroundWriter(writer.add, _AHEAD, finishes=True) as write,
        closing(prefetch(read_frames(video, done, encoding.alpha), _AHEAD)) as items,
    ):
        for number, item in enumerate(items):
            times.append(item.time)
            last = item.duration or video.facts.usual_duration
            if item.pixels is not None:
                share = shares(*told, number, kept)
                result = upscaled(upscaler, item.pixels, share, sizing)
            kept += item.kept
            if segments.is_computed(number):
                write(Result(number, item.time, None))
            elif not item.kept and result is not None:
                write(Result(number, item.time, result))
            told[0](Progress(number + 1, told[1], kept))
        write.finish()
        writer.end()
    return Timing(times, last)


def check_upscaler(upscaler: Upscaler, name: str) -> None:
    """Refuse one for textures: frames are neither normal maps nor have alpha.

    Raises:
        VideoError: It is for textures.
    """
    if upscaler.separate_alpha:
        option = "--normal-map" if upscaler.normal_map else "--separate-alpha"
        raise VideoError(f"{name}: {option} is for images, and this is a video; leave it out")


def shares(
    progress: Callable[[Progress], None], total: int | None, done: int, kept: int = 0
) -> Callable[[float], None]:
    """What tells the share of the present frame as progress of the video."""
    return lambda share: progress(Progress(done + share, total, kept))


def _complete(
    segments: Segments,
    timing: Timing,
    encoding: Encoding,
    target: Path,
    plan: Plan,
    source: Path | Bytes,
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
    frames = "1 frame is" if count == 1 else f"{count} frames are"
    saved = f"; {frames} saved, the same command goes on from there" if count else ""
    return f"{target}: can't be written: {reason_of(error)}{saved}"
