"""Convert decoded frames to arrays for the `Upscaler`, and upscale them."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agsr.engines.upscaler import Upscaler
from agsr.image.ops.output_size import OutputSize
from agsr.image.picture import Picture
from agsr.system.progress import ShareCallback
from agsr.video.colour import ToRgb
from agsr.video.reader import VideoSource


@dataclass(frozen=True)
class DecodedFrame:
    """A decoded frame."""

    time: int
    duration: int
    pixels: NDArray[Any] | None
    """None if equal to the previous frame, or if the frame is already finished."""
    finished: bool
    """Whether it is in a finished segment or was computed by an earlier run."""


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
