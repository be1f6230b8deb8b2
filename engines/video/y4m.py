"""Stream upscaled frames to stdout as YUV4MPEG2 (Y4M), uncompressed, for pipes.

``ffmpeg -i in.mp4 -f yuv4mpegpipe -strict -1 - | agsr infer - -o - | ffmpeg -i - out.mp4``
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from agsr.engines.concurrency import BackgroundWriter
from agsr.engines.upscaler import Upscaler
from agsr.engines.video import VideoOptions
from agsr.engines.video.frames import AHEAD, DecodedFrame, open_source, upscaled_frames
from agsr.errors import VideoError
from agsr.system.progress import ProgressCallback
from agsr.system.text import counted
from agsr.video.colour import FromRgb
from agsr.video.formats import Y4M_MAGIC
from agsr.video.properties import VideoProperties
from agsr.video.reader import ByteSource

if TYPE_CHECKING:
    from av import VideoFrame

_log = logging.getLogger(__name__)


class Sink(Protocol):
    """A writable byte stream."""

    def write(self, data: bytes, /) -> int:
        """Write some of the bytes, and return how many."""


def stream_video(
    upscaler: Upscaler,
    source: Path | ByteSource,
    sink: Sink,
    options: VideoOptions | None = None,
    progress: ProgressCallback = lambda _: None,
    blocky: Callable[[], None] = lambda: None,
) -> tuple[int, int]:
    """Upscale a video, and write its frames uncompressed as soon as they are computed.

    Args:
        upscaler: Runs in the caller's thread.
        source: A file or a YUV4MPEG2 stream.
        sink: Receives a YUV4MPEG2 stream with the source's chroma, depth and range.
        options: Only the size is used; there is no encoder.
        progress: Called after each tile.
        blocky: Called before the work if the source is strongly compressed.

    Returns:
        Height and width of the result.

    Raises:
        VideoError: The source can't be read or decoded completely, or the sink is closed or full.
        BackendError, MemoryError: As for images.
    """
    options = (options or VideoOptions()).for_network(upscaler.info.scale)
    with open_source(upscaler.facts, source, options) as opened:
        properties, name, done = opened.video.properties, opened.name, 0
        sizing = replace(options.sizing, multiple=2)
        lost = [*properties.sides.values()]
        if properties.alpha or properties.alpha_unread:
            lost.append("its transparency is lost: YUV4MPEG2 doesn't support it")
        for text in (*properties.warnings, *lost):
            _log.warning("%s: %s", name, text)
        if opened.is_strongly_compressed:
            blocky()
        size = sizing.result(*properties.shown_size)
        writer = Y4mWriter(sink, properties, size)
        try:
            with (
                BackgroundWriter(writer.add, AHEAD) as write,
                closing(upscaled_frames(upscaler, opened, sizing, progress)) as frames,
            ):
                rate = _RateCheck(properties, name)
                for frame, result in frames:
                    rate.check(frame)
                    write(result)
                    done += 1
                write.finish()
        except SinkError as error:
            raise VideoError(f"{name}: {error} after {counted(done, 'frame')}") from None
    return size


class SinkError(Exception):
    """The sink was closed or is full."""


class Y4mWriter:
    """Writes RGB arrays as a YUV4MPEG2 stream."""

    def __init__(self, sink: Sink, properties: VideoProperties, size: tuple[int, int]) -> None:
        self._sink = sink
        depth = next((bits for bits in (8, 10, 12) if bits >= properties.depth), 16)
        chroma = "mono" if properties.grey else properties.chroma
        base = "gray" if properties.grey else f"yuv{chroma}p"
        pix_fmt = base if depth == 8 else f"{base}{depth}le"
        self._layout = (depth + 7) // 8
        self._from_rgb = FromRgb(
            width=size[1],
            height=size[0],
            depth=properties.depth,
            pix_fmt=pix_fmt,
            matrix=properties.matrix,
            full_range=properties.full_range and not properties.rgb,
        )
        deep = "" if depth == 8 else (str(depth) if properties.grey else f"p{depth}")
        place = "mpeg2" if (chroma, depth) == ("420", 8) else ""
        aspect = properties.shown_aspect or Fraction(0)
        ratio = f"{aspect.numerator}:{aspect.denominator}" if aspect else "0:0"
        range_ = "FULL" if properties.full_range and not properties.rgb else "LIMITED"
        rate = f"{properties.rate.numerator}:{properties.rate.denominator}"
        header = f"W{size[1]} H{size[0]} F{rate} Ip A{ratio} C{chroma}{deep}{place}"
        self._begin = Y4M_MAGIC + f"{header} XCOLORRANGE={range_}\n".encode()

    def add(self, pixels: Any) -> None:
        """Write a frame, preceded by the header if it is the first."""
        planes = b"".join(self._packed(self._from_rgb(pixels)))
        self._write(self._begin + b"FRAME\n" + planes)
        self._begin = b""

    def _packed(self, frame: VideoFrame) -> list[bytes]:
        """Return the planes without FFmpeg's row padding."""
        rows = []
        for plane in frame.planes:
            values = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)  # type: ignore[call-overload]
            rows.append(values[: plane.height, : plane.width * self._layout].tobytes())
        return rows

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        try:
            while len(left):
                left = left[self._sink.write(left) :]  # type: ignore[arg-type]
        except BrokenPipeError:
            raise SinkError("stdout was closed") from None
        except OSError as error:
            raise SinkError(f"stdout can't be written ({error.strerror})") from None


class _RateCheck:
    """Warns once if the frame rate varies, because Y4M has a single rate."""

    def __init__(self, properties: VideoProperties, name: str) -> None:
        self._usual, self._name = properties.usual_duration, name
        self._before: int | None = None
        self._warned = False

    def check(self, item: DecodedFrame) -> None:
        """Check the time of the next frame."""
        step = self._usual if self._before is None else item.time - self._before
        self._before = item.time
        if not self._warned and abs(step - self._usual) > max(1, self._usual // 2):
            self._warned = True
            _log.warning("%s: its frame rate varies, which YUV4MPEG2 can't represent", self._name)
