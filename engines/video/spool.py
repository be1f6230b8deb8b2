"""Save computed frames of the segment being written, which an interruption would lose.

An encoder can't continue where it stopped, but it can start again: its input frames are saved
losslessly (FFV1), and a resumed run encodes them again. The segment equals that of an uninterrupted
run, and no frame is computed twice.

Decoders conceal most damage, so each file of frames has a file of checksums, a line per frame, and
frames are read up to the first mismatch.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from agsr.video.encoder import Encoding
from agsr.video.reader import av

if TYPE_CHECKING:
    from av import Packet, VideoFrame, VideoStream
    from av.container import InputContainer

NAME = re.compile(r"computed-(\d+)\.nut")
"""Files of frames, named by the first frame in each."""

SHARE, ALLOWANCE = 0.1, 2.0
"""Limits for the time spent on writing: a share of the elapsed time, and seconds always allowed. If
frames arrive too fast, only the segment's first ones are saved, and little is lost."""


class Spool:
    """Saves the frames of the current segment.

    Args:
        folder: Folder to write to.
        encoding: Size, layout and rate of the frames.
        clock: Returns seconds.
    """

    def __init__(
        self, folder: Path, encoding: Encoding, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._folder, self._encoding, self._clock = folder, encoding, clock
        self._began, self._spent = clock(), 0.0
        self._out: Any = None
        self._broken = False

    def add(self, number: int, frame: VideoFrame) -> None:
        """Save a frame, unless an earlier one of this segment is missing."""
        start = self._clock()
        gap = self._out is not None and number != self._first + self._written
        if self._broken or gap or self._spent > max(ALLOWANCE, SHARE * (start - self._began)):
            self._broken = True  # frames after a gap are useless
            return
        self._broken = True  # until the frame is completely written
        try:
            self._write(number, frame)
            self._broken = False
        except (av().error.FFmpegError, OSError):  # full disk: the segment needs the space
            self._close()
            remove_frames(self.path)
        self._spent += self._clock() - start

    def restart(self) -> None:
        """Close the file, because another segment begins."""
        self._close()
        self._broken = False

    def _write(self, number: int, frame: VideoFrame) -> None:
        if self._out is None:
            self._begin(number)
        frame.pts, frame.time_base = self._written, 1 / self._stream.average_rate
        for packet in self._stream.encode(frame):
            line = _checksum(self._stream, packet)
            self._out.mux(packet)
            self._sums.write(line + "\n")
        self._written += 1

    def _begin(self, number: int) -> None:
        self.path = self._folder / f"computed-{number:08}.nut"
        self._first, self._written = number, 0
        self._sums: TextIO = _sums(self.path).open("w", encoding="ascii", buffering=1)
        options = {"flush_packets": "1"}
        try:
            self._out = av().open(f"file:{self.path}", "w", container_options=options)
        except BaseException:
            self._sums.close()
            raise
        size = {"width": self._encoding.width, "height": self._encoding.height}
        form = {"pix_fmt": self._encoding.pix_fmt, "options": {"level": "3", "g": "1"}}
        self._stream = self._out.add_stream("ffv1", rate=25, **size, **form)

    def _close(self) -> None:
        out, self._out = self._out, None
        if out is not None:
            for close in (out.close, self._sums.close):
                with suppress(Exception):
                    close()


def remove_frames(path: Path) -> None:
    """Remove a file of frames and its checksums."""
    path.unlink(missing_ok=True)
    _sums(path).unlink(missing_ok=True)


def count_frames(path: Path) -> int:
    """Count the frames before the first damaged or incomplete one."""
    with suppress(av().error.FFmpegError), _opened(path) as file:
        return sum(1 for _ in _intact(path, file))
    return 0


def read_frames_of(path: Path) -> Iterator[VideoFrame]:
    """Yield the frames that `count_frames` counts, ready for an encoder."""
    with _opened(path) as file:
        for packet in chain(_intact(path, file), [None]):
            for frame in file.streams.video[0].decode(packet):
                frame.pict_type = 0  # the encoder chooses
                yield frame


def _opened(path: Path) -> InputContainer:
    options = {"protocol_whitelist": "file"}
    file: InputContainer = av().open(f"file:{path}", format="nut", options=options)
    return file


def _intact(path: Path, file: InputContainer) -> Iterator[Packet[VideoStream]]:
    """Yield the packets of a file up to the first checksum mismatch."""
    if not file.streams.video or not _sums(path).exists():
        return
    stream = file.streams.video[0]
    sums = _sums(path).read_bytes().splitlines()
    with suppress(av().error.FFmpegError):
        for packet, expected in zip(file.demux(stream), sums, strict=False):
            if _checksum(stream, packet).encode() != expected:
                return
            yield packet


def _checksum(stream: Any, packet: Packet[VideoStream]) -> str:
    """Return the BLAKE2b digest of a packet and the stream's parameters."""
    about = f"{stream.width} {stream.height} {(stream.codec_context.extradata or b'').hex()} "
    return hashlib.blake2b(about.encode() + bytes(packet), digest_size=16).hexdigest()


def _sums(path: Path) -> Path:
    return path.with_suffix(".sums")
