"""A look at all packets of a file before the work, without decoding them.

It finds truncated and damaged files, and collects what the trial of a result needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agsr.errors import VideoError
from agsr.video.reader import av, open_container, picture_stream, reason_of
from agsr.video.truncation import lacks_its_end

if TYPE_CHECKING:
    from av import Packet
    from av.container import InputContainer


@dataclass(frozen=True)
class First:
    """The first packet of a stream, detached from its file."""

    data: bytes
    pts: int | None
    dts: int | None
    duration: int
    keyframe: bool
    time_base: Fraction

    @classmethod
    def of(cls, packet: Packet[Any]) -> First:
        """Copy a packet."""
        timing = packet.pts, packet.dts, packet.duration or 0
        return cls(bytes(packet), *timing, packet.is_keyframe, packet.time_base)

    def packet(self) -> Packet[Any]:
        """A packet like it, for a file that begins with it."""
        packet = av().Packet(self.data)
        packet.time_base, packet.duration = self.time_base, self.duration
        packet.pts = packet.dts = 0
        packet.is_keyframe = self.keyframe
        return packet  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Survey:
    """What all packets show, without decoding them."""

    frames: int
    """Packets of the video stream that hold a picture."""
    bytes: int = 0
    """Sum of their sizes."""
    first: Mapping[int, First] = field(default_factory=dict)
    """The first packet of every stream that has one, by the stream's index."""


def survey(path: Path, max_pixels: int) -> Survey:
    """Read every packet of a file once, to find a truncated one before hours of work.

    Raises:
        VideoError: It is truncated, or damaged as far as its container shows.
    """
    frames = last = size = 0
    first: dict[int, First] = {}
    with open_container(path, str(path), max_pixels) as container:
        index = picture_stream(container, str(path)).index
        for packet in _packets(container, str(path)):
            if packet.is_corrupt:
                raise VideoError(f"{path}: damaged or truncated after frame {frames}")
            if packet.size and packet.stream_index not in first:
                first[packet.stream_index] = First.of(packet)
            if packet.stream_index == index and packet.size:
                frames, size = frames + 1, size + packet.size
            last = max(last, (packet.pos or 0) + packet.size)
    if lacks_its_end(path, last):
        raise VideoError(f"{path}: truncated after frame {frames}: its header tells of more")
    return Survey(frames, size, first)


def _packets(container: InputContainer, name: str) -> Iterator[Packet[Any]]:
    try:
        yield from container.demux()
    except av().error.FFmpegError as error:
        raise VideoError(f"{name}: damaged or truncated: {reason_of(error)}") from None
