"""Join encoded segments and the source's other streams into the result, without re-encoding."""

from __future__ import annotations

import heapq
import logging
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agsr.errors import VideoError
from agsr.video.encoder import Encoding
from agsr.video.reader import av, is_cover, open_container, picture_stream, start_of
from agsr.video.stream_copy import Plan, configure
from agsr.video.xmp_writer import write_xmp

if TYPE_CHECKING:
    from av import Packet
    from av.container import InputContainer

SEGMENT_FORMATS = ("nut", "mov", "webm")
"""Formats of segments; the later ones are for codecs that NUT can't hold."""

_log = logging.getLogger(__name__)


def segment_format(encoding: Encoding) -> str:
    """Return the format of an encoding's segments, which is also their ending."""
    if encoding.encoder == "libvpx-vp9" and encoding.alpha:
        return "webm"  # alpha is in packet side data
    return "mov" if encoding.encoder.startswith("prores") else "nut"


class SegmentError(VideoError):
    """A segment is damaged or doesn't match its name."""

    def __init__(self, path: Path, found: str) -> None:
        super().__init__(
            f"{path}: {found}; it was removed; run the same command again to rebuild it"
        )
        self.path = path


@dataclass(frozen=True)
class Timing:
    """Presentation times of a result's frames."""

    times: array[int]
    """Time of each frame in time-base units, increasing."""
    last: int
    """Duration of the last frame."""

    def of(self, number: int) -> tuple[int, int]:
        """Return time and duration of a frame.

        >>> Timing(array("q", [0, 2]), 3).of(1)
        (2, 3)
        """
        time, after = self.times[number], number + 1
        return time, self.times[after] - time if after < len(self.times) else self.last


def other_videos(source: Path, max_pixels: int) -> list[int]:
    """Return indices of further video streams, which are copied without upscaling."""
    with open_container(source, str(source), max_pixels) as container:
        main = picture_stream(container, str(source)).index
        return [
            stream.index
            for stream in container.streams.video
            if stream.index != main and not is_cover(stream)
        ]


def join(
    segments: Sequence[tuple[Path, int]],
    timing: Timing,
    encoding: Encoding,
    output: Path,
    plan: Plan,
    source: Path | None,
    max_pixels: int,
) -> None:
    """Write the complete file.

    Args:
        segments: Files and their frame counts, in order.
        timing: Times of all frames.
        encoding: Encoding of the segments.
        output: File to write.
        plan: Container, and the streams to copy.
        source: File from which other streams, chapters and metadata are copied, if any.
        max_pixels: Pixel limit for the source.

    Raises:
        SegmentError: A segment is damaged.
        VideoError: The source can't be read completely.
        OSError: The file can't be written.
    """
    pictures = _pictures(segments, timing, encoding)
    # For web playback the index must be at the beginning.
    options = {"movflags": "+faststart"} if plan.form in ("mp4", "mov") else {}
    with av().open(f"file:{output}", "w", format=plan.form, container_options=options) as out:
        if source is None:
            video = configure(out, encoding, plan, None)[0]
            for packet in pictures:
                packet.stream = video
                out.mux(packet)
            return
        with open_container(source, str(source), max_pixels) as container:
            _copy_into(out, container, encoding, plan, pictures)
    if plan.xmp:
        write_xmp(output, plan.xmp, plan.form)


def _copy_into(
    out: Any,
    container: InputContainer,
    encoding: Encoding,
    plan: Plan,
    pictures: Iterator[Packet[Any]],
) -> None:
    streams = configure(out, encoding, plan, container)
    main = picture_stream(container, container.name).index
    both = heapq.merge(
        ((_seconds(p), main, p) for p in pictures),
        ((_seconds(p), p.stream_index, p) for p in _others(container, streams, main)),
        key=lambda entry: entry[0],
    )
    for _, index, packet in both:
        packet.stream = streams[index]
        out.mux(packet)


def _pictures(
    segments: Sequence[tuple[Path, int]], timing: Timing, encoding: Encoding
) -> Iterator[Packet[Any]]:
    """Yield the packets of all segments in decoding order, with increasing decode times."""
    display_orders = _display_orders(segments)
    delay = max(at - place for order in display_orders for at, place in enumerate(order))
    first, step = 0, max(1, round(1 / encoding.rate / encoding.time_base))
    for (path, _), order in zip(segments, display_orders, strict=True):
        with _opened(path) as container:
            packets = (packet for packet in container.demux(video=0) if packet.size)
            for at, (packet, place) in enumerate(zip(packets, order, strict=True), first):
                behind = at - delay
                early = timing.times[0] + behind * step
                packet.pts, packet.duration = timing.of(first + place)
                packet.dts = timing.times[behind] if behind >= 0 else early
                packet.time_base = encoding.time_base
                yield packet
        first += len(order)


def _others(container: InputContainer, streams: dict[int, Any], main: int) -> Iterator[Packet[Any]]:
    """Yield the copied packets in source order; covers get time 0."""
    untimed, start = set[int](), start_of(container)
    try:
        for packet in container.demux():
            index = packet.stream_index
            if index not in streams or index == main or not packet.size:
                continue
            if packet.pts is None and packet.dts is None:
                if not is_cover(container.streams[index]):
                    untimed.add(index)
                    continue
                packet.pts = packet.dts = 0
            elif start:
                shift = round(start / packet.time_base)
                packet.pts = None if packet.pts is None else packet.pts - shift
                packet.dts = None if packet.dts is None else packet.dts - shift
            yield packet
    except av().error.FFmpegError as error:
        raise VideoError(
            f"{container.name}: can't be read a second time: {error.strerror}"
        ) from None
    for index in sorted(untimed):
        _log.warning("%s: packets of stream %d without times are lost", container.name, index)


def _display_orders(segments: Sequence[tuple[Path, int]]) -> list[list[int]]:
    """Return, for each segment, the display position of each packet.

    Raises:
        SegmentError: A segment has another number of frames.
    """
    display_orders = []
    for path, count in segments:
        with _opened(path) as container:
            times = [packet.pts for packet in container.demux(video=0) if packet.size]
        places = {time: place for place, time in enumerate(sorted(times))}
        if len(times) != count or len(places) != count:
            raise SegmentError(path, f"{len(times)} frames, expected {count}")
        display_orders.append([places[time] for time in times])
    return display_orders


def _opened(path: Path) -> InputContainer:
    library = av()
    options = {"protocol_whitelist": "file"}
    try:
        return library.open(  # type: ignore[no-any-return]
            f"file:{path}", format=path.suffix[1:], options=options
        )
    except library.error.FFmpegError:
        raise SegmentError(path, "not a segment") from None


def _seconds(packet: Packet[Any]) -> Fraction:
    time = packet.pts if packet.dts is None else packet.dts
    return (time or 0) * packet.time_base
