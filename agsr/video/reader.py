"""Video files → decoded frames, and what is known of them: local files of a few containers only.

A video is not trusted: FFmpeg may open the named file alone, by a demuxer of `DEMUXERS`, and no
frame above the limit of pixels is decoded.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from agsr.errors import VideoError, VideoTooLargeError
from agsr.system.cpu import is_limited, thread_count
from agsr.system.optional_import import require
from agsr.system.text import first_line
from agsr.video.boxes import Crop, stored_crop
from agsr.video.formats import Y4M_MAGIC
from agsr.video.properties import VideoFacts, Watch, facts_of

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,yuv4mpegpipe,mpegts,mpeg,flv,asf,ogg"
"""FFmpeg's names of the containers that are read: none of them refers to other files."""

_ARBITRARY_STARTS = ("mpegts", "mpeg")
"""Containers whose times count from anywhere, such as the start of the broadcast."""


_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


class Bytes(Protocol):
    """Where a stream of bytes comes from."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""


class Counted:
    """A stream of bytes that counts what it gives."""

    def __init__(self, source: Bytes) -> None:
        self._source = source
        self.given = 0
        """Bytes so far."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""
        data = self._source.read(size)
        self.given += len(data)
        return data


def av() -> Any:
    """PyAV, or an error that says how to get it."""
    return require("av", extra="video", purpose="Reading or writing video")


class VideoSource:
    """An opened video: its facts, and its frames once, in the order they are shown."""

    def __init__(
        self,
        container: InputContainer,
        name: str,
        centred: bool = False,
        counted: Counted | None = None,
        crop: Crop | None = None,
    ) -> None:
        self._name, self._counted = name, counted
        self._container, self._taken = container, False
        self._stream = picture_stream(container, name)
        self._stream.thread_type = "AUTO"
        if is_limited():  # FFmpeg knows nothing of control groups
            self._stream.codec_context.thread_count = thread_count(None)
        self._decoder = _decoder_of_alpha(self._stream)
        decoded = self._decoded()
        first = next(decoded, None)
        if first is None:
            raise VideoError(f"{name}: no frame in it")
        self._frames = chain([first], decoded)
        self.facts: VideoFacts = facts_of(self._stream, first, name, centred, crop)
        self._watch = Watch(self.facts, name)
        self._start = round(start_of(container) / self.facts.time_base)

    def frames(self) -> Generator[tuple[int, VideoFrame], None, None]:
        """Each frame and its time, in units of the time base and growing; then it is closed.

        Raises:
            VideoError: A frame can't be decoded, or its size is another than that of the first.
        """
        self._taken = True
        last, usual = None, self.facts.usual_duration
        with closing(self._container):
            for number, frame in enumerate(self._frames):
                self._check(number, frame)
                self._watch.check(number, frame)
                time = frame.pts
                if time is None or (last is not None and time <= last):
                    time = 0 if last is None else last + (usual if time is None else 1)
                last = time
                yield time - self._start, frame

    def close(self) -> None:
        """Close it, unless its frames are taken, perhaps in another thread: that closes it."""
        if not self._taken:
            self._container.close()

    def _check(self, number: int, frame: VideoFrame) -> None:
        facts = self.facts
        if (frame.width, frame.height) != (facts.width, facts.height):
            raise VideoError(
                f"{self._name}: frame {number} has {frame.width}x{frame.height} pixels, the first "
                f"{facts.width}x{facts.height}; cut the video where its size changes"
            )
        if frame.is_corrupt:
            raise VideoError(f"{self._name}: frame {number} is damaged")

    def _decode(self, packet: Packet[Any]) -> list[VideoFrame]:
        if self._decoder is None:
            return packet.decode()
        return list(self._decoder.decode(packet if packet.size else None))

    def _decoded(self) -> Iterator[VideoFrame]:
        number = end = 0
        packets = self._container.demux(self._stream)
        try:
            for packet in packets:
                end = max(end, (packet.pos or 0) + packet.size)
                for frame in self._decode(packet):
                    yield frame
                    number += 1
        except (av().error.FFmpegError, ValueError) as error:
            raise VideoError(
                f"{self._name}: frame {number} can't be decoded: {reason_of(error)}"
            ) from None
        if self._counted is not None and self._counted.given > end:  # FFmpeg ends without a word
            raise VideoError(f"{self._name}: truncated: it ends within frame {number}")


def open_container(source: Path | Bytes, name: str, max_pixels: int) -> InputContainer:
    """An input of FFmpeg.

    Raises:
        VideoError: There is no such file, or it is not a video that is read here.
    """
    library = av()
    form = None if isinstance(source, Path) else "yuv4mpegpipe"
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": DEMUXERS,
        "max_pixels": str(max_pixels),
    }
    if form:  # every frame is like the first, so that there is nothing to wait for
        options |= {"probesize": "32", "analyzeduration": "0"}
    opened = _local(source) if isinstance(source, Path) else source
    try:
        return library.open(  # type: ignore[no-any-return]
            opened, format=form, options=options, metadata_errors="replace"
        )
    except (library.error.FFmpegError, ValueError) as error:
        raise VideoError(_not_opened(source, name, error)) from None


def open_video(source: Path | Bytes, name: str, max_pixels: int) -> VideoSource:
    """A video, to be closed.

    Args:
        source: A file, or where a YUV4MPEG2 stream comes from.
        name: For messages.
        max_pixels: Videos with larger frames are refused, undecoded.

    Raises:
        VideoError: As `open_container`; or no frame can be decoded, or frames are too large.
    """
    counted = None if isinstance(source, Path) else Counted(source)
    container = open_container(counted or source, name, max_pixels)
    try:
        _check_size(picture_stream(container, name), name, max_pixels)
        crop = stored_crop(source) if isinstance(source, Path) else None
        return VideoSource(container, name, _centred(source), counted, crop)
    except BaseException:
        container.close()
        raise


def picture_stream(container: InputContainer, name: str) -> VideoStream:
    """The video stream to upscale: the first that is no cover picture.

    Raises:
        VideoError: There is none, or nothing here decodes it.
    """
    streams = [stream for stream in container.streams.video if not is_cover(stream)]
    if not streams:
        raise VideoError(f"{name}: no video stream in it")
    if streams[0].codec_context is None:
        raise VideoError(f"{name}: nothing here decodes its video stream")
    return streams[0]


def start_of(container: InputContainer) -> Fraction:
    """Seconds to subtract from all times, where a container doesn't count from 0."""
    if container.format.name not in _ARBITRARY_STARTS:
        return Fraction(0)
    return Fraction(container.start_time or 0, av().time_base)


def is_cover(stream: Any) -> bool:
    """Whether a stream is a picture that stands for the file."""
    return bool(stream.disposition & av().stream.Disposition.attached_pic)


def _centred(source: Path | Bytes) -> bool:
    """Whether a YUV4MPEG2 header says that colour lies between the pixels, its default."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            header = file.readline(256)
    else:
        header = getattr(source, "header", b"")
    if not header.startswith(Y4M_MAGIC):
        return False
    layouts = [word for word in header.split() if word.startswith(b"C")]
    return layouts in ([], [b"C420"], [b"C420jpeg"])


def _decoder_of_alpha(stream: VideoStream) -> Any:
    """A decoder of VP8 or VP9 that reads their alpha, which FFmpeg's own skip; else None."""
    tags = {key.lower(): text for key, text in stream.metadata.items()}
    name = _ALPHA_DECODERS.get(stream.codec_context.name)
    if name is None or tags.get("alpha_mode") != "1":
        return None
    try:
        decoder = av().CodecContext.create(name, "r")
    except ValueError:  # a build of FFmpeg without libvpx
        return None
    decoder.extradata = stream.codec_context.extradata
    return decoder


def _check_size(stream: VideoStream, name: str, max_pixels: int) -> None:
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > max_pixels:
        raise VideoTooLargeError(
            f"{name}: {width}x{height} is {width * height} pixels a frame, more than {max_pixels}; "
            "raise --max-pixels if the file is trusted",
            path=name,
            limit=max_pixels,
            found=width * height,
        )


def _local(path: Path) -> str:
    """A name that FFmpeg takes for a file's, whatever is in it."""
    if not path.exists():
        raise VideoError(f"{path}: no such file")
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "not a regular file"
        raise VideoError(f"{path}: {kind}; expected a video file, or '-' for YUV4MPEG2 from stdin")
    return f"file:{path}"


def _not_opened(source: Path | Bytes, name: str, error: Exception) -> str:
    if isinstance(source, Path) and source.stat().st_size == 0:
        return f"{name}: the file is empty (0 bytes)"
    if isinstance(error, PermissionError):
        return f"{name}: can't be read: {error.strerror}"
    return (
        f"{name}: not a video, or truncated; expected one of MP4, MOV, MKV, WebM, AVI, MPEG-TS, "
        "MPEG-PS, FLV, ASF, Ogg, YUV4MPEG2"
    )


def reason_of(error: Exception) -> str:
    """FFmpeg's reason, without the rest."""
    return getattr(error, "strerror", None) or first_line(error)
