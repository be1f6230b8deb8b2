"""Open video files and decode their frames, from local files in a few containers only.

Videos are untrusted input: FFmpeg may open only the named file, with a demuxer in `DEMUXERS`, and
frames above the pixel limit are not decoded.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from agsr.errors import VideoError, VideoTooLargeError
from agsr.system.optional_import import require
from agsr.system.text import first_line
from agsr.video.boxes import Crop, stored_crop
from agsr.video.decoder import TOO_LARGE, Decoder, allocated
from agsr.video.formats import Y4M_MAGIC
from agsr.video.frame_monitor import FrameMonitor
from agsr.video.properties import VideoProperties, properties_of

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,yuv4mpegpipe,mpegts,mpeg,flv,asf,ogg"
"""FFmpeg's names of the supported containers; none of them references other files."""

_ARBITRARY_STARTS = ("mpegts", "mpeg")
"""Containers whose timestamps start anywhere, for example at the start of a broadcast."""


class ByteSource(Protocol):
    """A readable stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """Read at most ``size`` bytes; empty at the end."""


class CountedSource:
    """A byte source that counts the bytes read from it."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self.given = 0
        """Bytes read so far."""

    def read(self, size: int, /) -> bytes:
        """Read at most ``size`` bytes; empty at the end."""
        data = self._source.read(size)
        self.given += len(data)
        return data


def av() -> Any:
    """Return PyAV, or raise an error that names the extra to install."""
    return require("av", extra="video", purpose="Reading or writing video")


class VideoSource:
    """An opened video: its properties, and one pass over its frames in display order."""

    def __init__(
        self,
        container: InputContainer,
        name: str,
        max_pixels: int,
        centred: bool = False,
        counted: CountedSource | None = None,
        crop: Crop | None = None,
    ) -> None:
        self._name, self._counted = name, counted
        self._container, self._iterating = container, False
        self._stream = picture_stream(container, name)
        self._max_pixels = max_pixels
        self._decoder = Decoder(self._stream, max_pixels)
        decoded = self._decoded()
        first = next(decoded, None)
        if first is None:
            raise VideoError(f"{name}: has no frames")
        _check_size(first.width, first.height, name, max_pixels)
        self._frames = chain([first], decoded)
        self.properties: VideoProperties = properties_of(self._stream, first, name, centred, crop)
        self._monitor = FrameMonitor(self.properties, name)
        self._start = round(start_of(container) / self.properties.time_base)

    def frames(self, watched: bool = True) -> Generator[tuple[int, VideoFrame], None, None]:
        """Yield frames with strictly increasing times in time-base units; then close the video.

        Args:
            watched: Whether to warn of what appears only in later frames.

        Raises:
            VideoError: A frame can't be decoded, is damaged, or differs in size from the first.
        """
        self._iterating = True
        last, usual = None, self.properties.usual_duration
        with closing(self._container):
            for number, frame in enumerate(self._frames):
                self._check(number, frame)
                if watched:
                    self._monitor.check(number, frame)
                time = frame.pts
                if time is None or (last is not None and time <= last):
                    time = 0 if last is None else last + (usual if time is None else 1)
                last = time
                yield time - self._start, frame

    def close(self) -> None:
        """Close the video, unless `frames` was called, perhaps in another thread: it closes it."""
        if not self._iterating:
            self._container.close()

    def _check(self, number: int, frame: VideoFrame) -> None:
        properties = self.properties
        if (frame.width, frame.height) != (properties.width, properties.height):
            raise VideoError(
                f"{self._name}: frame {number} has {frame.width}x{frame.height} pixels, the first "
                f"{properties.width}x{properties.height}; cut the video where its size changes"
            )
        if frame.is_corrupt:
            raise VideoError(f"{self._name}: frame {number} is damaged")

    def _decoded(self) -> Iterator[VideoFrame]:
        number = end = 0
        packets = self._container.demux(self._stream)
        try:
            for packet in packets:
                end = max(end, (packet.pos or 0) + packet.size)
                for frame in self._decoder.decode(packet):
                    yield frame
                    number += 1
        except (av().error.FFmpegError, ValueError) as error:
            reason = reason_undecoded(error, self._max_pixels)
            raise VideoError(f"{self._name}: frame {number} can't be decoded: {reason}") from None
        if self._counted is not None and self._counted.given > end:  # FFmpeg reports no error
            raise VideoError(f"{self._name}: truncated: it ends within frame {number}")


def open_container(
    source: Path | ByteSource, name: str, max_pixels: int, further: Mapping[str, str] | None = None
) -> InputContainer:
    """Open an FFmpeg input container.

    Args:
        source: A file or a YUV4MPEG2 stream.
        name: File name for messages.
        max_pixels: Larger frames are not decoded to find properties.
        further: Options of FFmpeg.

    Raises:
        VideoError: The file doesn't exist or is not a supported video.
    """
    form = None if isinstance(source, Path) else "yuv4mpegpipe"
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": DEMUXERS,
        "max_pixels": str(allocated(max_pixels)),
        **(further or {}),
    }
    if form:  # the header describes all frames, so no probing is needed
        options |= {"probesize": "32", "analyzeduration": "0"}
    opened = _local(source) if isinstance(source, Path) else source
    try:
        return av().open(  # type: ignore[no-any-return]
            opened, format=form, options=options, metadata_errors="replace"
        )
    except (av().error.FFmpegError, ValueError) as error:
        raise VideoError(_not_opened(source, name, error)) from None


def open_video(source: Path | ByteSource, name: str, max_pixels: int) -> VideoSource:
    """Open a video; the caller closes it.

    Args:
        source: A file or a YUV4MPEG2 stream.
        name: File name for messages.
        max_pixels: Videos with larger frames are rejected before decoding.

    Raises:
        VideoError: As for `open_container`, or frames are too large or can't be decoded.
    """
    counted = None if isinstance(source, Path) else CountedSource(source)
    container = open_container(counted or source, name, max_pixels)
    try:
        context = picture_stream(container, name).codec_context
        _check_size(context.width, context.height, name, max_pixels)
        crop = stored_crop(source) if isinstance(source, Path) else None
        return VideoSource(container, name, max_pixels, _centred(source), counted, crop)
    except BaseException:
        container.close()
        raise


def picture_stream(container: InputContainer, name: str) -> VideoStream:
    """Return the video stream to upscale: the first that is not a cover picture.

    Raises:
        VideoError: There is none, or no installed decoder supports it.
    """
    streams = [stream for stream in container.streams.video if not is_cover(stream)]
    if not streams:
        raise VideoError(f"{name}: has no video stream")
    if streams[0].codec_context is None:
        raise VideoError(f"{name}: no installed decoder supports its video stream")
    return streams[0]


def start_of(container: InputContainer) -> Fraction:
    """Return the start time in seconds of containers that don't start at 0; else 0."""
    if container.format.name not in _ARBITRARY_STARTS:
        return Fraction(0)
    return Fraction(container.start_time or 0, av().time_base)


def is_cover(stream: Any) -> bool:
    """Return True if a stream is a cover picture."""
    return bool(stream.disposition & av().stream.Disposition.attached_pic)


def _centred(source: Path | ByteSource) -> bool:
    """Return True if a YUV4MPEG2 header has centred chroma, which is its default."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            header = file.readline(256)
    else:
        header = getattr(source, "header", b"")
    if not header.startswith(Y4M_MAGIC):
        return False
    layouts = [word for word in header.split() if word.startswith(b"C")]
    return layouts in ([], [b"C420"], [b"C420jpeg"])


def _check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise VideoTooLargeError(
            f"{name}: {width}x{height} is {width * height} pixels a frame, more than {max_pixels}; "
            "raise --max-pixels if the file is trusted",
            path=name,
            limit=max_pixels,
            found=width * height,
        )


def _local(path: Path) -> str:
    """Return a URL that FFmpeg treats as a local file, whatever characters it contains."""
    if not path.exists():
        raise VideoError(f"{path}: no such file")
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "not a regular file"
        raise VideoError(f"{path}: {kind}; expected a video file, or '-' for YUV4MPEG2 from stdin")
    return f"file:{path}"


def _not_opened(source: Path | ByteSource, name: str, error: Exception) -> str:
    if isinstance(source, Path) and source.stat().st_size == 0:
        return f"{name}: the file is empty (0 bytes)"
    if isinstance(error, PermissionError):
        return f"{name}: can't be read: {error.strerror}"
    return (
        f"{name}: not a video, or truncated; expected one of MP4, MOV, MKV, WebM, AVI, MPEG-TS, "
        "MPEG-PS, FLV, ASF, Ogg, YUV4MPEG2"
    )


def reason_undecoded(error: Exception, max_pixels: int) -> str:
    """Return why a frame can't be decoded; decoders report its size like other errors."""
    large = getattr(error, "errno", None) in TOO_LARGE
    return reason_of(error) + (f", or more than {max_pixels} pixels" if large else "")


def reason_of(error: Exception) -> str:
    """Return FFmpeg's reason alone."""
    return getattr(error, "strerror", None) or first_line(error)
