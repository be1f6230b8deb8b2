"""Read all packets of a file before the work starts, without decoding them.

This detects truncated, damaged and strongly compressed files, and collects the first packets for
the trial of a result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agsr.errors import VideoError
from agsr.video.first_frames import check_first_frames
from agsr.video.properties import VideoProperties
from agsr.video.reader import av, open_container, picture_stream, reason_of
from agsr.video.truncation import is_truncated

if TYPE_CHECKING:
    from av import Packet
    from av.container import InputContainer


@dataclass(frozen=True)
class FirstPacket:
    """The first packet of a stream, detached from its file."""

    data: bytes
    pts: int | None
    dts: int | None
    duration: int
    keyframe: bool
    time_base: Fraction

    @classmethod
    def of(cls, packet: Packet[Any]) -> FirstPacket:
        """Copy a packet."""
        timing = packet.pts, packet.dts, packet.duration or 0
        return cls(bytes(packet), *timing, packet.is_keyframe, packet.time_base)

    def packet(self) -> Packet[Any]:
        """Return a copy of the packet with time 0."""
        packet = av().Packet(self.data)
        packet.time_base, packet.duration = self.time_base, self.duration
        packet.pts = packet.dts = 0
        packet.is_keyframe = self.keyframe
        return packet  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Survey:
    """Summary of all packets."""

    frames: int
    """Video packets that contain a picture."""
    bytes: int = 0
    """Sum of their sizes."""
    first: Mapping[int, FirstPacket] = field(default_factory=dict)
    """The first packet of every stream that has one, by the stream's index."""


def survey(path: Path, max_pixels: int) -> Survey:
    """Read every packet of a file once, to detect truncation before hours of work.

    Raises:
        VideoError: The file is truncated, or its container shows damage.
    """
    frames = last = size = 0
    first: dict[int, FirstPacket] = {}
    check_first_frames(path, str(path), max_pixels)
    with open_container(path, str(path), max_pixels) as container:
        index = picture_stream(container, str(path)).index
        for packet in _packets(container, str(path)):
            if packet.is_corrupt:
                raise VideoError(f"{path}: damaged or truncated after frame {frames}")
            if packet.size and packet.stream_index not in first:
                first[packet.stream_index] = FirstPacket.of(packet)
            if packet.stream_index == index and packet.size:
                frames, size = frames + 1, size + packet.size
            last = max(last, (packet.pos or 0) + packet.size)
    if is_truncated(path, last):
        raise VideoError(f"{path}: truncated after frame {frames}: its header declares more")
    return Survey(frames, size, first)


def _packets(container: InputContainer, name: str) -> Iterator[Packet[Any]]:
    try:
        yield from container.demux()
    except av().error.FFmpegError as error:
        raise VideoError(f"{name}: damaged or truncated: {reason_of(error)}") from None


STRONG = {
    "mpeg1video": 0.25,
    "mpeg2video": 0.2,
    "mjpeg": 1.0,
    "flv1": 0.15,
    "h263": 0.15,
    "wmv1": 0.15,
    "wmv2": 0.15,
    "wmv3": 0.12,
    "vc1": 0.1,
    "msmpeg4v3": 0.15,
    "mpeg4": 0.15,
    "theora": 0.15,
    "vp8": 0.1,
    "h264": 0.08,
    "hevc": 0.05,
    "vp9": 0.05,
    "av1": 0.04,
}
"""Thresholds in bits per pixel and frame, by FFmpeg's codec name. Below them, most material shows
blocks, ringing or smearing. For 1080p H.264 at 25 frames/s this is 4.1 Mbit/s; DVDs are often below
it, at 2 Mbit/s."""


def bits_per_pixel(survey: Survey, properties: VideoProperties) -> float:
    """Return the mean number of bits per pixel and frame."""
    pixels = survey.frames * properties.width * properties.height
    return 8 * survey.bytes / pixels if pixels else 0.0


def is_strongly_compressed(survey: Survey, properties: VideoProperties) -> bool:
    """Return True if the bits per pixel are below the codec's threshold in `STRONG`."""
    limit = STRONG.get(properties.codec)
    return limit is not None and 0 < bits_per_pixel(survey, properties) < limit
