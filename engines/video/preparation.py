"""Prepare the upscaling of a video, and complete it: what one process and several have in common.

Data flow: source, target and options → `Preparation`, with an open source, a tested plan and the
segments of earlier runs → the caller makes the missing segments → `Preparation.complete`.
"""

from __future__ import annotations

import errno
import logging
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from agsr._version import __version__
from agsr.engines.picture_upscaler import NetworkFacts
from agsr.engines.preflight import check_video_target
from agsr.engines.video.frames import OpenSource, open_source
from agsr.engines.video.options import VideoOptions
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
from agsr.image.ops.output_size import OutputSize
from agsr.system.atomic_file import complete_file
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


@dataclass(frozen=True)
class Preparation:
    """A video that is ready to be upscaled."""

    opened: OpenSource
    source: Path | ByteSource
    target: Path
    options: VideoOptions
    encoding: Encoding
    plan: Plan
    segments: Segments

    @property
    def sizing(self) -> OutputSize:
        """Size of the frames."""
        return replace(self.options.sizing, multiple=2)

    def complete(self, timing: Timing) -> None:
        """Join all segments with the other streams, and remove them.

        Raises:
            VideoError: Segments are missing or damaged.
            OSError: The result can't be written.
        """
        parts = self.segments.in_order(len(timing.times))
        origin = self.source if isinstance(self.source, Path) else None
        most = self.options.max_pixels
        try:
            with complete_file(self.target) as temporary:
                join(parts, timing, self.encoding, temporary, self.plan, origin, most)
        except SegmentError as error:
            self.segments.remove(error.path)
            raise
        remove_segments(self.segments)


@contextmanager
def prepared(
    network: NetworkFacts,
    source: Path | ByteSource,
    target: Path,
    options: VideoOptions,
    blocky: Callable[[], object],
) -> Iterator[Preparation]:
    """Open a source and the segments of its result; the arguments are those of `upscale_video`.

    Raises:
        VideoError: The source can't be read, or the result can't be written as requested; also for
            errors of the encoder and the disk within the context.
    """
    options = options.for_network(network.info.scale)
    form = _form(target)
    check_video_target(source if isinstance(source, Path) else None, target)
    with open_source(network, source, options) as opened:
        properties = opened.video.properties
        encoding, lost = _encoding(properties, target, form, options)
        plan = _plan(source, properties, encoding, target, form, options, opened.seen, lost)
        if opened.is_strongly_compressed:
            blocky()
        made_of = _identity(network, source, encoding, options)
        with open_segments(target, made_of, segment_format(encoding)) as segments:
            try:
                yield Preparation(opened, source, target, options, encoding, plan, segments)
            except (av().error.FFmpegError, OSError) as error:
                if not isinstance(error, av().error.FFmpegError) and error.errno not in _FULL:
                    raise
                raise VideoError(_unwritten(target, error)) from None
            finally:
                if not isinstance(source, Path):
                    remove_segments(segments)  # a stream can't be resumed


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
    network: NetworkFacts, source: Path | ByteSource, encoding: Encoding, options: VideoOptions
) -> Mapping[str, Any]:
    """Return everything that the segments depend on; one GPU is as good as another."""
    device = re.sub(r":\d+$", "", network.info.device)
    library = av()
    return {
        "input": content_hash(source) if isinstance(source, Path) else secrets.token_hex(8),
        "network": asdict(replace(network.info, reason="", device=device)),
        "tiling": network.tiling,
        "sizing": asdict(options.sizing),
        "encoding": asdict(encoding),
        "segment": LENGTH,
        "versions": [__version__, library.__version__, library.library_versions],
    }


def _unwritten(target: Path, error: Exception) -> str:
    count = saved_frames(target)
    frames = counted_are(count, "frame")
    saved = f"; {frames} saved; the same command continues there" if count else ""
    return f"{target}: can't be written: {reason_of(error)}{saved}"
