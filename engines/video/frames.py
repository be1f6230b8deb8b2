"""Decoded frames of a video → arrays for the `Upscaler`, and its results → arrays for encoders."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agsr.engines.upscaler import Upscaler
from agsr.image.ops.output_size import OutputSize
from agsr.image.picture import Picture
from agsr.video.colour import ToRgb
from agsr.video.reader import VideoSource


@dataclass(frozen=True)
class Item:
    """A frame as it is read."""

    time: int
    duration: int
    pixels: NDArray[Any] | None
    """None if they are those of the frame before, or were upscaled by an earlier run."""
    kept: bool


def read_frames(
    video: VideoSource, done: dict[int, int], alpha: bool = False
) -> Generator[Item, None, None]:
    """Frames with their pixels where these are new, and in no finished segment.

    Args:
        video: Is closed at the end.
        done: Finished segments: numbers of frames, by the first frame.
        alpha: Whether pixels have alpha as their fourth channel.
    """
    to_rgb, before, skipped = ToRgb(video.facts, alpha), None, 0
    with closing(video.frames()) as frames:
        for number, (time, frame) in enumerate(frames):
            skipped = max(skipped, number + done.get(number, 0))
            if number < skipped:
                before = None
                yield Item(time, frame.duration, None, kept=True)
                continue
            pixels = to_rgb(frame)
            repeated = before is not None and np.array_equal(pixels, before)
            before = pixels
            yield Item(time, frame.duration, None if repeated else pixels, kept=False)


def upscaled(
    upscaler: Upscaler, pixels: NDArray[Any], progress: Callable[[float], None], sizing: OutputSize
) -> NDArray[Any]:
    """Upscale a frame ``(H, W, 3)``, or ``(H, W, 4)`` with alpha as the fourth channel."""
    if pixels.shape[2] == 3:
        return upscaler.picture(Picture(pixels), progress, sizing).pixels
    alpha = np.ascontiguousarray(pixels[..., 3])
    picture = Picture(np.ascontiguousarray(pixels[..., :3]), alpha)
    result = upscaler.picture(picture, progress, sizing)
    opaque = np.full(result.pixels.shape[:2], np.iinfo(pixels.dtype).max, pixels.dtype)
    return np.dstack([result.pixels, opaque if result.alpha is None else result.alpha])
