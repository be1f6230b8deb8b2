"""Encoded segments + what else is in the source → the complete file; nothing is encoded again."""

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
from agsr.video.stream_copy import Plan, append_xmp, configure

if TYPE_CHECKING:
    from av import Packet
    from av.container import InputContainer

SEGMENT_FORMATS = ("nut", "mov", "webm")
"""Formats of segments; the others are for what the first can't hold."""

_log = logging.getLogger(__name__)


def segment_format(encoding: Encoding) -> str:
    """Format, and ending, of the segments of an encoding."""
    if encoding.encoder == "libvpx-vp9" and encoding.alpha:
        return "webm"  # alpha is in a packet's side data
    return "mov" if encoding.encoder.startswith("prores") else "nut"


class SegmentError(VideoError):
    """A segment is not what its name says."""

    def __init__(self, path: Path, found: str) -> None:
        super().__init__(f"{path}: {found}; it was removed, and the same command makes it anew")
        self.path = path


@dataclass(frozen=True)
class Timing:
    """When the frames of a result are shown."""

    times: array[int]
    """Of each frame, in units of the encoding's time base, growing."""
    last: int
    """Duration of the last frame."""

    def of(self, number: int) -> tuple[int, int]:
        """When a frame is shown, and for how long."""
        time, after = self.times[number], number + 1
        return time, self.times[after] - time if after < len(self.times) else self.last


def other_videos(source: Path, max_pixels: int) -> list[int]:
    """Indices of further video streams, which stay as small as they are."""
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
        segments: Files and the numbers of frames in them, in order.
        timing: Of all frames.
        encoding: What the segments were made with.
        output: Where to.
        plan: Container, and what is copied from the source.
        source: What all other streams, chapters and metadata are copied from, if anything.
        max_pixels: As for the source before.

    Raises:
        SegmentError: A segment is damaged.
        VideoError: The source can't be read to its end again.
        OSError: The file can't be written.
    """
    pictures = _pictures(segments, timing, encoding)
    # Players of the web want the index at the file's beginning.
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
        append_xmp(output, plan.xmp)


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
    """The packets of all segments, in decoding order, with times to decode that grow."""
    orders = _orders(segments)
    delay = max(at - place for order in orders for at, place in enumerate(order))
    first, step = 0, max(1, round(1 / encoding.rate / encoding.time_base))
    for (path, _), order in zip(segments, orders, strict=True):
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
    """The packets that are copied, in the source's order; a cover's come at 0."""
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
        raise VideoError(f"{container.name}: can't be read again: {error.strerror}") from None
    for index in sorted(untimed):
        _log.warning("%s: packets of stream %d without times are lost", container.name, index)


def _orders(segments: Sequence[tuple[Path, int]]) -> list[list[int]]:
    """Of the packets of each segment the places at which they are shown.

    Raises:
        SegmentError: A segment holds another number of frames.
    """
    orders = []
    for path, count in segments:
        with _opened(path) as container:
            times = [packet.pts for packet in container.demux(video=0) if packet.size]
        places = {time: place for place, time in enumerate(sorted(times))}
        if len(times) != count or len(places) != count:
            raise SegmentError(path, f"{len(times)} frames, expected {count}")
        orders.append([places[time] for time in times])
    return orders


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
