"""Open a video, decode and upscale its frames: shared by `upscale` (files) and `y4m` (streams).

Data flow: file or stream → `OpenSource` → `DecodedFrame`, decoded ahead in a thread → results as
arrays, which the caller encodes.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agsr.engines.concurrency import prefetch
from agsr.engines.picture_upscaler import NetworkFacts
from agsr.engines.upscaler import Upscaler
from agsr.engines.video.options import VideoOptions, check_upscaler
from agsr.image.ops.output_size import OutputSize
from agsr.image.picture import Picture
from agsr.system.progress import Progress, ProgressCallback, ShareCallback, within
from agsr.video.colour import ToRgb
from agsr.video.packet_survey import Survey, is_strongly_compressed, survey
from agsr.video.reader import ByteSource, VideoSource, open_video

AHEAD = 2
"""Frames that are decoded ahead, and encoded behind, while the network runs."""


@dataclass(frozen=True)
class OpenSource:
    """An open video."""

    video: VideoSource
    name: str
    """File name for messages."""
    seen: Survey
    """Packets of a file; empty for a stream."""
    total: int | None
    """Number of frames; None for a stream."""

    @property
    def is_strongly_compressed(self) -> bool:
        """Whether compression artifacts become visible when upscaled."""
        return is_strongly_compressed(self.seen, self.video.properties)


@dataclass(frozen=True)
class DecodedFrame:
    """A decoded frame."""

    time: int
    duration: int
    pixels: NDArray[Any] | None
    """None if equal to the previous frame, or if the frame is already finished."""
    finished: bool
    """Whether it is in a finished segment or was computed by an earlier run."""


@contextmanager
def open_source(
    network: NetworkFacts, source: Path | ByteSource, options: VideoOptions
) -> Iterator[OpenSource]:
    """Open a file or a YUV4MPEG2 stream.

    Raises:
        VideoError: It can't be read, or the network is for textures.
    """
    name = str(source) if isinstance(source, Path) else "-"
    check_upscaler(network, name)
    seen = survey(source, options.max_pixels) if isinstance(source, Path) else Survey(0)
    total = seen.frames if isinstance(source, Path) else None
    with closing(open_video(source, name, options.max_pixels)) as video:
        yield OpenSource(video, name, seen, total)


def upscaled_frames(
    upscaler: Upscaler,
    source: OpenSource,
    sizing: OutputSize,
    progress: ProgressCallback,
    done: dict[int, int] | None = None,
    alpha: bool = False,
) -> Generator[tuple[DecodedFrame, NDArray[Any] | None], None, None]:
    """Yield each frame with its result; frames equal to the previous one share its result.

    Args:
        upscaler: Runs in the caller's thread.
        source: Read to its end.
        sizing: Size of the result.
        progress: Called after each tile and each frame.
        done: As for `read_frames`; finished frames have no result, or that of an earlier frame.
        alpha: As for `read_frames`.
    """
    result, reused = None, 0
    frames = read_frames(source.video, done or {}, alpha)
    with closing(prefetch(frames, AHEAD)) as upcoming:
        for number, frame in enumerate(upcoming):
            if frame.pixels is not None:
                share = within(progress, source.total, number, reused)
                result = upscaled(upscaler, frame.pixels, share, sizing)
            reused += frame.finished
            yield frame, result
            progress(Progress(number + 1, source.total, reused))


def read_frames(
    video: VideoSource, done: dict[int, int], alpha: bool = False
) -> Generator[DecodedFrame, None, None]:
    """Yield frames, with pixels only for new frames outside finished segments.

    Args:
        video: Closed at the end.
        done: Number of frames in each finished segment, by its first frame.
        alpha: Whether pixels have alpha as the fourth channel.
    """
    to_rgb, before, skipped = ToRgb(video.properties, alpha), None, 0
    with closing(video.frames()) as frames:
        for number, (time, frame) in enumerate(frames):
            skipped = max(skipped, number + done.get(number, 0))
            if number < skipped:
                before = None
                yield DecodedFrame(time, frame.duration, None, finished=True)
                continue
            pixels = to_rgb(frame)
            repeated = before is not None and np.array_equal(pixels, before)
            before = pixels
            yield DecodedFrame(time, frame.duration, None if repeated else pixels, finished=False)


def upscaled(
    upscaler: Upscaler, pixels: NDArray[Any], progress: ShareCallback, sizing: OutputSize
) -> NDArray[Any]:
    """Upscale a frame ``(H, W, 3)``, or ``(H, W, 4)`` with alpha as the fourth channel."""
    if pixels.shape[2] == 3:
        return upscaler.picture(Picture(pixels), progress, sizing).pixels
    alpha = np.ascontiguousarray(pixels[..., 3])
    picture = Picture(np.ascontiguousarray(pixels[..., :3]), alpha)
    result = upscaler.picture(picture, progress, sizing)
    opaque = np.full(result.pixels.shape[:2], np.iinfo(pixels.dtype).max, pixels.dtype)
    return np.dstack([result.pixels, opaque if result.alpha is None else result.alpha])
