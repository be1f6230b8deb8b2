"""Frames that were upscaled → segments of a video, encoded one after the other.

A complete segment gets its name in the folder of `agsr.engines.video.segments`. The frames of an
interrupted one stay for the next run (`agsr.engines.video.spool`).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from agsr.engines.video.segments import LENGTH, Segments
from agsr.engines.video.spool import Spool
from agsr.video.colour import FromRgb
from agsr.video.encoder import Encoding
from agsr.video.mux import segment_format
from agsr.video.reader import av


@dataclass(frozen=True)
class Result:
    """A frame of the result."""

    number: int
    """Counted from 0, over the whole video."""
    time: int
    """When it is shown, in the encoding's `time_base`."""
    pixels: NDArray[Any] | None
    """``(H, W, 3)``, RGB, or ``(H, W, 4)`` with alpha; None if an earlier run computed them."""


class SegmentWriter:
    """Encodes frames into segments of `LENGTH`.

    Args:
        encoding: Of the result.
        segments: Where they go.
        resumable: Whether another run could use the frames of an interrupted segment.
    """

    def __init__(self, encoding: Encoding, segments: Segments, resumable: bool = True) -> None:
        self._spool = Spool(segments.folder, encoding) if resumable else None
        self._computed = segments.computed_frames()
        self._encoding, self._segments = encoding, segments
        self._from_rgb = FromRgb.of(encoding)
        self._form, self._packets = segment_format(encoding), 0
        self._out: Any = None
        self._first = self._count = 0

    def add(self, result: Result) -> None:
        """Encode one more frame; a complete segment gets its name."""
        if self._out is None:
            self._begin(result.number)
        expected = self._first + self._count
        if result.number != expected:
            raise RuntimeError(f"frame {result.number} of the result; expected frame {expected}")
        frame = self._frame(result)
        frame.pts, frame.time_base = result.time, self._encoding.time_base
        self._write(frame)
        self._count += 1
        if self._count == LENGTH:
            self.end()

    def _frame(self, result: Result) -> Any:
        """The frame for the encoder; a new one is also written for the next run."""
        if result.pixels is None:
            return self._from_rgb.tagged(next(self._computed))
        frame = self._from_rgb(result.pixels)
        if self._spool is not None:
            self._spool.add(result.number, frame)
        return frame

    def end(self) -> None:
        """Complete the present segment, if there is one."""
        if self._out is None:
            return
        self._write(None)
        out, self._out = self._out, None
        out.close()
        if self._spool is not None:
            self._spool.restart()
        self._segments.complete(self._first, self._count)

    def _write(self, frame: Any) -> None:
        """Encode a frame, or with None what the encoder still holds."""
        packet: Any
        for packet in self._stream.encode(frame):
            # Of less than three frames, x265 takes the times to decode from memory that it never
            # wrote, and a muxer refuses those after pts. In the complete file all are made anew.
            packet.dts = min(packet.dts, packet.pts)
            if self._form == "webm":  # which counts milliseconds; their order is all that counts
                packet.pts = packet.dts = self._packets
                packet.time_base = Fraction(1, 1000)
                self._packets += 1
            self._out.mux(packet)

    def _begin(self, number: int) -> None:
        path = self._segments.unfinished
        self._out = av().open(f"file:{path}", "w", format=self._form)
        self._stream = self._encoding.add_to(self._out)
        self._first, self._count, self._packets = number, 0, 0

    def __enter__(self) -> SegmentWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._spool is not None:
            self._spool.restart()
        if self._out is None:
            return
        with suppress(Exception):  # it is thrown away
            self._out.close()
        self._segments.unfinished.unlink(missing_ok=True)
