"""Write small files in memory to test what a container accepts, for `agsr.video.trial`.

Each contains one encoded black frame and the first packet of every other stream that a `Plan`
copies.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from agsr.video.colour import FromRgb
from agsr.video.encoder import Encoding
from agsr.video.packet_survey import FirstPacket
from agsr.video.reader import av, picture_stream
from agsr.video.stream_copy import Plan, configure

if TYPE_CHECKING:
    from av.container import InputContainer


class Trials:
    """Writes files with one frame and one packet of each other stream; encodes the frame once."""

    def __init__(
        self, container: InputContainer | None, encoding: Encoding, first: Mapping[int, FirstPacket]
    ) -> None:
        self._container, self._encoding, self._first = container, encoding, first
        self._picture: list[Any] = []
        self._last: tuple[Plan, io.BytesIO] | None = None

    def accepted(self, plan: Plan) -> bool:
        """Return True if a plan can be written; muxers and PyAV raise many kinds of errors."""
        try:
            self.of(plan)
        except Exception:
            return False
        return True

    def of(self, plan: Plan) -> io.BytesIO:
        """Return the trial file of a plan; the last one is reused.

        Raises:
            FFmpegError, ValueError: It can't be written.
        """
        if self._last is None or self._last[0] != plan:
            self._last = plan, self._written(plan)
        return self._last[1]

    def _written(self, plan: Plan) -> io.BytesIO:
        sink = io.BytesIO()
        out = av().open(sink, "w", format=plan.form)
        try:
            self._fill(out, configure(out, self._encoding, plan, self._container))
        except BaseException:
            with suppress(Exception):
                out.close()
            raise
        out.close()
        return sink

    def _fill(self, out: Any, streams: dict[int, Any]) -> None:
        container = self._container
        main = picture_stream(container, container.name).index if container else 0
        self._picture = self._picture or _one_picture(streams[main], self._encoding)
        for packet in self._picture:
            packet.stream = streams[main]
            out.mux(packet)
        for index in sorted(set(streams) & set(self._first) - {main}):
            packet = self._first[index].packet()
            packet.stream = streams[index]
            out.mux(packet)


def _one_picture(stream: Any, encoding: Encoding) -> list[Any]:
    """Encode a black frame."""
    shape = encoding.height, encoding.width, 4 if encoding.alpha else 3
    frame = FromRgb.of(encoding)(np.zeros(shape, np.uint8 if encoding.depth <= 8 else np.uint16))
    frame.pts, frame.time_base = 0, encoding.time_base
    packets = [*stream.encode(frame), *stream.encode(None)]
    for packet in packets:
        packet.dts = packet.pts
    return packets
