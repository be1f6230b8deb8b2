"""Open decoders whose memory follows from the size of the frames, whatever a file contains.

A stream of `agsr.video.reader` → its decoder, limited in pixels and threads; packets → frames.
FFmpeg checks the limit wherever a frame is allocated, also for frames larger than the first. Its
wrappers of libvpx don't, so alpha of VP8 and VP9 is decoded by FFmpeg's own decoders.
"""

from __future__ import annotations

import errno
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from agsr.system.cpu import is_limited, thread_count
from agsr.system.memory import free_memory

if TYPE_CHECKING:
    from av import Packet, VideoCodecContext, VideoFrame
    from av.video.stream import VideoStream

BYTES_PER_PIXEL: Final = 8
"""Memory per thread and pixel: its frame and the codec's tables."""

SHARE: Final = 4
"""Decoders may use this part of the free memory, but one thread always runs."""

TOO_LARGE: Final = (errno.EINVAL, errno.ENOMEM, errno.ERANGE)
"""Error codes of decoders for frames above their limit, among others."""

_AUTOMATIC = 16
"""Maximum number of threads that FFmpeg starts by itself."""

_BORDER = 256
"""Pixels that decoders add to each side, at most; 232 are known."""

_WITH_ALPHA = ("vp8", "vp9")
_ALPHA = "matroska_block_additional"
_ALPHA_ID = (1).to_bytes(8, "big")
"""Precedes the packet of alpha."""


def allocated(pixels: int, sides: int = 0) -> int:
    """Return FFmpeg's ``max_pixels`` for frames of so many pixels: it counts their borders, too.

    >>> allocated(768, 32 + 24) >= (32 + 128) * (24 + 232)  # of the MPEG family
    True

    Args:
        pixels: Largest frame, without borders.
        sides: Width plus height if they are known; sides of at most 4:1 count in any case.
    """
    sides = max(sides, int(2.5 * math.sqrt(pixels)))
    return pixels + _BORDER * sides + _BORDER**2


def limits(size: tuple[int, int], max_pixels: int) -> tuple[int, int]:
    """Return the number of threads for a decoder, and its limit in pixels per frame.

    Every thread may hold a frame as large as the limit.

    Args:
        size: Width and height by the container or the first packets; 0 if unknown.
        max_pixels: Largest frame that the user allows.
    """
    pixels = size[0] * size[1]
    budget = free_memory() // SHARE // BYTES_PER_PIXEL
    usual = thread_count(None)
    if not is_limited():  # as FFmpeg chooses
        usual = min(usual + (usual > 1), _AUTOMATIC)
    threads = max(1, min(usual, budget // pixels)) if pixels else 1
    if threads > 1:
        max_pixels = min(max_pixels, max(4 * pixels, budget // threads))
    return threads, allocated(max_pixels, sum(size))


class Decoder:
    """Decodes one stream.

    Args:
        stream: Of an opened container.
        max_pixels: Larger frames are not decoded.
    """

    def __init__(self, stream: VideoStream, max_pixels: int) -> None:
        self._context = context = stream.codec_context
        threads, pixels = limits((context.width, context.height), max_pixels)
        context.options = {"max_pixels": str(pixels)}
        context.thread_count, context.thread_type = threads, "AUTO"
        self._alpha = _decoder_of_alpha(stream)
        self._last: VideoFrame | None = None

    def decode(self, packet: Packet[Any]) -> list[VideoFrame]:
        """Return the frames that a packet completes; an empty one flushes the decoder."""
        frames = self._context.decode(packet if packet.size else None)
        if self._alpha is None:
            return frames
        hidden = _alpha_packet(packet)
        if hidden is not None:
            self._last = next(iter(self._alpha.decode(hidden)), self._last)
        return [_merged(frame, self._last) for frame in frames]


def _decoder_of_alpha(stream: VideoStream) -> VideoCodecContext | None:
    """Return a second decoder for VP8 or VP9 with alpha, if the stream has it.

    Both decoders then return a frame at once, so that those of a packet belong together.
    """
    from av import CodecContext

    tags = {key.lower(): text for key, text in stream.metadata.items()}
    context = stream.codec_context
    if context.name not in _WITH_ALPHA or tags.get("alpha_mode") != "1":
        return None
    decoder: Any = CodecContext.create(context.name, "r")
    context.thread_type = decoder.thread_type = "SLICE"
    decoder.options, decoder.thread_count = context.options, context.thread_count
    return decoder  # type: ignore[no-any-return]


def _alpha_packet(packet: Packet[Any]) -> Packet[Any] | None:
    from av import Packet

    content = next((bytes(d) for d in packet.iter_sidedata() if d.data_type == _ALPHA), b"")
    return Packet(content[8:]) if content[:8] == _ALPHA_ID and len(content) > 8 else None


def _merged(frame: VideoFrame, alpha: VideoFrame | None) -> VideoFrame:
    """Return a frame with the luma of another one as its alpha, if they fit.

    Raises:
        ValueError: Their sizes or depths differ.
    """
    if alpha is None:
        return frame
    result = frame
    with suppress(ValueError):  # a layout that has no counterpart with alpha
        result = frame.reformat(format="yuva" + frame.format.name.removeprefix("yuv"))
    if result is frame:
        return frame
    target, source = result.planes[3], alpha.planes[0]
    if (target.width, target.height) != (source.width, source.height) or (
        alpha.format.components[0].bits != result.format.components[3].bits
    ):
        raise ValueError("its alpha has another size or depth")
    _copy(source, target)
    return result


def _copy(source: Any, target: Any) -> None:
    import numpy as np

    width = min(source.line_size, target.line_size)
    rows = np.frombuffer(source, np.uint8).reshape(-1, source.line_size)
    np.frombuffer(target, np.uint8).reshape(-1, target.line_size)[:, :width] = rows[:, :width]
