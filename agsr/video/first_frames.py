"""Decode the first frames of a video with a pixel limit before FFmpeg does it without one.

Data flow: a file of `agsr.video.packet_survey`, opened without decoding → the packets that FFmpeg
looks at to find the properties of streams → nothing, or an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from agsr.errors import VideoError
from agsr.video.decoder import TOO_LARGE, allocated
from agsr.video.reader import av, open_container, reason_undecoded

if TYPE_CHECKING:
    from av.container import InputContainer

_LATE_STREAMS = ("flv", "mpeg")
"""Containers whose streams are found in their packets: FFmpeg applies no pixel limit to them while
it looks for their properties."""

_UNDECODED = {"codec_whitelist": "none"}
_PEEK = {**_UNDECODED, "probesize": "32", "analyzeduration": "0"}
"""Options for determining the container alone."""

_PROBED = 5_000_000
"""FFmpeg's default of ``probesize``."""


def check_first_frames(source: Path, name: str, max_pixels: int) -> None:
    """Check the first frames of a file that FFmpeg would decode without a limit to open it.

    Raises:
        VideoError: One is too large, or the file is not a supported video.
    """
    with open_container(source, name, max_pixels, _PEEK) as peeked:
        if peeked.format.name not in _LATE_STREAMS:
            return
    with open_container(source, name, max_pixels, _UNDECODED) as container:
        try:
            _decode(container, max_pixels)
        except av().error.FFmpegError as error:
            if error.errno in TOO_LARGE:  # otherwise it is reported when it is read
                reason = reason_undecoded(error, max_pixels)
                raise VideoError(f"{name}: can't be decoded: {reason}") from None


def _decode(container: InputContainer, max_pixels: int) -> None:
    """Decode what FFmpeg may decode to find the properties of streams, but with a limit.

    Args:
        container: Opened without decoding.
        max_pixels: Larger frames are not decoded.

    Raises:
        av.error.FFmpegError: A frame is larger, or memory runs out; see `TOO_LARGE`.
    """
    from av.error import FFmpegError

    streams = [stream for stream in container.streams.video if stream.codec_context is not None]
    for stream in streams:
        stream.codec_context.options = {"max_pixels": str(allocated(max_pixels))}
        stream.codec_context.thread_count = 1
    for packet in container.demux(streams) if streams else ():
        if (packet.pos or 0) > _PROBED:
            return
        try:
            packet.decode()
        except FFmpegError as error:
            if error.errno in TOO_LARGE:
                raise
