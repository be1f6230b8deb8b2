"""Small video files, made with PyAV, and what is read back of results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from conftest import Repeat
from numpy.typing import NDArray

from agsr.engines.upscaler import Upscaler
from agsr.engines.video import VideoOptions, upscale_video

FAST = VideoOptions(preset="ultrafast")
LOSSLESS = VideoOptions(preset="ultrafast", crf=0)

_SHARES: dict[int, tuple[float, float]] = {
    1: (0.2126, 0.0722),
    6: (0.299, 0.114),
    9: (0.2627, 0.0593),
}
"""Share of red and blue in luma, by matrix."""


def codes(
    rgb: Sequence[float], matrix: int, *, full: bool = False, depth: int = 8
) -> tuple[int, int, int]:
    """Y, Cb and Cr of a colour in [0, 1], by the formulas of BT.709 and its kin."""
    kr, kb = _SHARES[matrix]
    red, green, blue = rgb
    y = kr * red + (1 - kr - kb) * green + kb * blue
    cb, cr = (blue - y) / (2 * (1 - kb)), (red - y) / (2 * (1 - kr))
    unit, half = 1 << (depth - 8), 1 << (depth - 1)
    if full:
        top = (1 << depth) - 1
        return round(y * top), min(round(half + cb * top), top), min(round(half + cr * top), top)
    return (
        round((16 + 219 * y) * unit),
        round(half + 224 * cb * unit),
        round(half + 224 * cr * unit),
    )


@dataclass(frozen=True, kw_only=True)
class Clip:
    """What a clip is made of."""

    frames: int = 12
    width: int = 32
    height: int = 24
    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    rate: Fraction = Fraction(25)
    time_base: Fraction | None = None
    times: Sequence[int] | None = None
    tags: tuple[int, int, int, int] = (1, 1, 1, 1)
    """Primaries, transfer, matrix, range."""
    colour: tuple[int, int, int] | None = None
    """The same Y, Cb and Cr everywhere; None for a picture that moves."""
    hold: int = 1
    """How many frames show the same picture."""
    aspect: Fraction | None = None
    rotation: float | None = None
    audio: str | None = None
    subtitles: bool = False
    options: dict[str, str] = field(default_factory=dict)
    header: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    chapters: bool = False


def make(path: Path, clip: Clip | None = None, form: str | None = None) -> Path:
    """Write a clip; returns its path."""
    clip = clip or Clip()
    base = clip.time_base or 1 / clip.rate
    with av.open(str(path), "w", format=form, container_options=clip.header) as out:
        video: Any = out.add_stream(
            clip.codec, rate=clip.rate, width=clip.width, height=clip.height, time_base=base
        )
        video.options.update(clip.options)
        context = video.codec_context
        context.pix_fmt = clip.pix_fmt
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = (
            clip.tags
        )
        if clip.aspect:
            context.sample_aspect_ratio = clip.aspect
        if clip.rotation:
            video.set_display_rotation(clip.rotation)
        sound: Any = out.add_stream(clip.audio, rate=48000) if clip.audio else None
        out.metadata.update(clip.metadata)
        if clip.chapters:
            out.set_chapters(_chapters(clip))
        for number in range(clip.frames):
            frame = _frame(clip, number)
            frame.pts, frame.time_base = (clip.times[number] if clip.times else number), base
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if sound is not None:
            _beep(out, sound, clip)
    return path


def _chapters(clip: Clip) -> Any:
    half = int(clip.frames / clip.rate * 500)
    return [
        {
            "id": number,
            "start": number * half,
            "end": (number + 1) * half,
            "time_base": Fraction(1, 1000),
            "metadata": {"title": f"Part {number}"},
        }
        for number in range(2)
    ]


def _frame(clip: Clip, number: int) -> Any:
    frame = av.VideoFrame(clip.width, clip.height, clip.pix_fmt)
    wide = max(component.bits for component in frame.format.components) > 8
    for plane, part in zip(frame.planes, range(3), strict=False):
        kind: Any = np.uint16 if wide else np.uint8
        values = np.frombuffer(plane, kind).reshape(plane.height, -1)
        if clip.colour is not None:
            values[:] = clip.colour[part]
            continue
        values[:] = (128 << 2) if wide else 128
        if part == 0:
            at = number // clip.hold * 3 % (clip.width - 8)
            values[:, : clip.width] = np.linspace(40, 180, clip.width).astype(kind) << (
                2 if wide else 0
            )
            values[8:16, at : at + 8] = 235 << (2 if wide else 0)
    return frame


def _beep(out: Any, sound: Any, clip: Clip) -> None:
    """A short tone each half second, from the beginning to the end of the pictures."""
    samples = int(48000 * clip.frames / clip.rate)
    at = np.arange(samples)
    tone = np.where(at % 24000 < 4800, np.sin(at * 2 * np.pi * 440 / 48000) * 12000, 0)
    size = sound.codec_context.frame_size or 1024
    for begin in range(0, samples, size):
        part = np.zeros(size, np.int16)
        part[: len(tone[begin : begin + size])] = tone[begin : begin + size]
        frame = av.AudioFrame.from_ndarray(part.repeat(2)[None], format="s16", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48000, begin, Fraction(1, 48000)
        out.mux(sound.encode(frame))
    out.mux(sound.encode(None))


def upscale(source: Path, target: Path, options: VideoOptions = FAST) -> Repeat:
    """Upscale a video by repeating pixels; the backend, for what it saw."""
    backend = Repeat()
    upscale_video(Upscaler(backend=backend), source, target, options)
    return backend


def picture_stream(path: Path) -> Any:
    """The first video stream."""
    with av.open(str(path)) as file:
        return file.streams.video[0]


def times(path: Path) -> list[Fraction]:
    """When each frame is shown, in seconds."""
    with av.open(str(path)) as file:
        return [frame.pts * frame.time_base for frame in file.decode(video=0)]  # type: ignore[operator]


def planes(path: Path, number: int = 0) -> list[NDArray[Any]]:
    """Y, Cb and Cr of one frame, as decoded."""
    with av.open(str(path)) as file:
        for at, frame in enumerate(file.decode(video=0)):
            if at == number:
                return _planes(frame)
    raise AssertionError(f"{path} has no frame {number}")


def every_frame(path: Path) -> list[bytes]:
    """The decoded bytes of all frames."""
    with av.open(str(path)) as file:
        return [b"".join(p.tobytes() for p in _planes(f)) for f in file.decode(video=0)]


def _planes(frame: Any) -> list[NDArray[Any]]:
    kind: Any = np.uint16 if frame.format.components[0].bits > 8 else np.uint8
    return [
        np.frombuffer(plane, kind).reshape(plane.height, -1)[:, : plane.width].copy()
        for plane in frame.planes
    ]


def packets(path: Path, kind: str) -> list[tuple[Fraction, bytes]]:
    """Time and bytes of the packets of the first stream of a kind."""
    with av.open(str(path)) as file:
        stream = next(stream for stream in file.streams if stream.type == kind)
        return [
            (p.pts * p.time_base, bytes(p))
            for p in file.demux(stream)
            if p.size and p.pts is not None
        ]
