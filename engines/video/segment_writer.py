"""Encode upscaled frames into the segments of a video, one after the other.

A complete segment appears in the folder of `agsr.engines.video.segments`. The frames of an
interrupted one are saved for the next run (`agsr.engines.video.spool`).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from agsr.engines.video.segments import LENGTH, SegmentFolder
from agsr.engines.video.spool import Spool
from agsr.video.colour import FromRgb
from agsr.video.encoder import Encoding
from agsr.video.mux import segment_format
from agsr.video.reader import av


@dataclass(frozen=True)
class Result:
    """A frame of the result."""

    number: int
    """Frame number in the video, from 0."""
    time: int
    """Presentation time, in the encoding's `time_base`."""
    pixels: NDArray[Any] | None
    """RGB ``(H, W, 3)``, or ``(H, W, 4)`` with alpha; None if computed by an earlier run."""


class SegmentWriter:
    """Encodes frames into segments of `LENGTH`.

    Args:
        encoding: Encoding of the result.
        segments: Folder of the segments.
        resumable: Whether to save the frames of an unfinished segment for another run.
        threads: As for `Encoding.add_to`.
    """

    def __init__(
        self,
        encoding: Encoding,
        segments: SegmentFolder,
        resumable: bool = True,
        threads: int = 0,
    ) -> None:
        self._spool = Spool(segments.folder, encoding) if resumable else None
        self._encoding, self._segments, self._threads = encoding, segments, threads
        self._from_rgb = FromRgb.of(encoding)
        self._form, self._packets = segment_format(encoding), 0
        self._out: Any = None
        self._first = self._count = 0

    def add(self, result: Result) -> None:
        """Encode one frame; a segment that becomes complete gets its final name."""
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
        """Return the frame for the encoder; new ones are also saved for the next run."""
        if result.pixels is None:
            return self._from_rgb.tagged(next(self._computed))
        frame = self._from_rgb(result.pixels)
        if self._spool is not None:
            self._spool.add(result.number, frame)
        return frame

    def end(self) -> None:
        """Complete the current segment, if any."""
        if self._out is None:
            return
        self._write(None)
        out, self._out = self._out, None
        out.close()
        if self._spool is not None:
            self._spool.restart()
        self._segments.complete(self._first, self._count)

    def _write(self, frame: Any) -> None:
        """Encode a frame; None flushes the encoder."""
        packet: Any
        for packet in self._stream.encode(frame):
            # For fewer than three frames, x265 reads dts from uninitialised memory, and muxers
            # reject dts after pts. The complete file gets new times anyway.
            packet.dts = min(packet.dts, packet.pts)
            if self._form == "webm":  # WebM counts milliseconds; only the order matters here
                packet.pts = packet.dts = self._packets
                packet.time_base = Fraction(1, 1000)
                self._packets += 1
            self._out.mux(packet)

    def _begin(self, number: int) -> None:
        self._computed = self._segments.computed_frames(number)
        path = self._segments.unfinished(number)
        self._out = av().open(f"file:{path}", "w", format=self._form)
        self._stream = self._encoding.add_to(self._out, self._threads)
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
        with suppress(Exception):  # it is discarded
            self._out.close()
        self._segments.unfinished(self._first).unlink(missing_ok=True)
