"""Encoded segments + what else is in the source → the complete file; nothing is encoded again."""

from __future__ import annotations

import heapq
import io
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agsr.errors import VideoError
from agsr.video_encode import Encoding
from agsr.video_source import av, open_container, picture_stream

if TYPE_CHECKING:
    from av import Packet
    from av.container import InputContainer, OutputContainer
    from av.stream import Stream

_MADE_ANEW = {"encoder", "major_brand", "minor_version", "compatible_brands", "DURATION"}
"""Metadata of a file as such, not of what is in it."""

_STATISTICS = ("BPS", "NUMBER_OF_", "_STATISTICS_")
"""What MKV tools note of a stream, and what is no longer true of the video."""

SEGMENT_FORMATS = ("nut", "mov")
"""Of segments, the second for what the first can't hold."""


def segment_format(encoding: Encoding) -> str:
    """Format, and ending, of the segments of an encoding."""
    return SEGMENT_FORMATS[encoding.encoder.startswith("prores")]


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


def left_out(source: Path, form: str, max_pixels: int) -> dict[int, str]:
    """Streams that a container can't hold, by their index, described.

    The text of an MP4's chapters is one, too, with an empty description: it is written anew.
    """
    with open_container(source, str(source), max_pixels) as container:
        main = picture_stream(container, str(source)).index
        return {
            stream.index: "" if _is_chapter_text(container, stream) else _described(stream)
            for stream in container.streams
            if stream.index != main and not _holds(form, stream)
        }


def other_videos(source: Path, max_pixels: int) -> list[int]:
    """Indices of further video streams, which stay as small as they are."""
    from agsr.video_source import is_cover

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
    form: str,
    source: Path | None,
    max_pixels: int,
    strip: bool = False,
) -> None:
    """Write the complete file.

    Args:
        segments: Files and the numbers of frames in them, in order.
        timing: Of all frames.
        encoding: What the segments were made with.
        output: Where to.
        form: FFmpeg's name of the container.
        source: What all other streams, chapters and metadata are copied from, if anything.
        max_pixels: As for the source before.
        strip: Copy no metadata but languages, and no data streams, such as a camera's places.

    Raises:
        SegmentError: A segment is damaged.
        VideoError: The source can't be read to its end again.
        OSError: The file can't be written.
    """
    pictures = _pictures(segments, timing, encoding)
    # Players of the web want the index at the file's beginning.
    options = {"movflags": "+faststart"} if form in ("mp4", "mov") else {}
    with av().open(f"file:{output}", "w", format=form, container_options=options) as out:
        if source is None:
            video = encoding.add_to(out)
            out.start_encoding()
            for packet in pictures:
                packet.stream = video
                out.mux(packet)
            return
        dropped = left_out(source, form, max_pixels)
        with open_container(source, str(source), max_pixels) as container:
            if strip:
                dropped |= {stream.index: "" for stream in container.streams.data}
            _copy_into(out, container, dropped, encoding, pictures, strip)


def _copy_into(
    out: OutputContainer,
    container: InputContainer,
    dropped: dict[int, str],
    encoding: Encoding,
    pictures: Iterator[Packet[Any]],
    strip: bool,
) -> None:
    main = picture_stream(container, container.name).index
    streams: dict[int, Any] = {}
    for stream in container.streams:
        if stream.index == main:
            streams[main] = encoding.add_to(out)
        elif stream.index not in dropped:
            streams[stream.index] = out.add_stream_from_template(stream, opaque=True)
    for index, stream in streams.items():
        given = container.streams[index]
        stream.disposition = int(given.disposition)
        named = _needed(given) if strip else _kept(given.metadata, index == main)
        stream.metadata.update(named)
    if not strip:
        out.metadata.update(_kept(container.metadata, False))
    out.set_chapters(container.chapters())
    out.start_encoding()
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
    """What is copied, as it lies in the source."""
    try:
        for packet in container.demux():
            wanted = packet.stream_index in streams and packet.stream_index != main
            if wanted and packet.size and not (packet.pts is None and packet.dts is None):
                yield packet
    except av().error.FFmpegError as error:
        raise VideoError(f"{container.name}: can't be read again: {error.strerror}") from None


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


def _holds(form: str, stream: Stream) -> bool:
    """Whether a container takes a stream, found out by writing the header of one."""
    out = None
    try:
        out = av().open(io.BytesIO(), "w", format=form)
        out.add_stream_from_template(stream, opaque=True)
        out.start_encoding()
    except Exception:  # muxers and PyAV refuse in many ways
        return False
    finally:
        if out is not None:
            with suppress(Exception):
                out.close()
    return True


def _is_chapter_text(container: InputContainer, stream: Stream) -> bool:
    name = getattr(stream, "name", None)
    return stream.type == "data" and name == "bin_data" and bool(container.chapters())


def _described(stream: Stream) -> str:
    name = getattr(stream, "name", None) or "unknown"
    language = stream.metadata.get("language", "")
    words = [stream.type, name, *([language] if language else [])]
    return f"stream {stream.index} ({', '.join(words)})"


def _needed(stream: Stream) -> dict[str, str]:
    """What a stream can't be used without: its language, and of an attachment its file's name."""
    needed = {"language"} | ({"filename", "mimetype"} if stream.type == "attachment" else set())
    return {key: value for key, value in stream.metadata.items() if key.lower() in needed}


def _kept(metadata: dict[str, str], video: bool) -> dict[str, str]:
    left = _MADE_ANEW | ({"encoder"} if video else set())
    return {
        key: value
        for key, value in metadata.items()
        if key not in left and not (video and key.startswith(_STATISTICS))
    }
