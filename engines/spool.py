"""Computed frames of the segment that is being written, on disk: what an interruption would lose.

An encoder can't continue where it stopped, but it can start again: the frames that it was given are
written without loss (FFV1), and a run that continues gives them to the encoder once more. So the
segment equals that of a run without a stop, and none of its frames is computed twice.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agsr.video_encode import Encoding
from agsr.video_source import av

if TYPE_CHECKING:
    from av import VideoFrame

NAME = re.compile(r"computed-(\d+)\.nut")
"""Files of frames, named by the first frame in each."""

SHARE, ALLOWANCE = 0.1, 2.0
"""Share of the time, and seconds at once, that writing may cost: where frames come so fast that it
costs more, only the segment's first frames are written, and little is lost."""


class Spool:
    """Writes the frames of the present segment.

    Args:
        folder: Where to.
        encoding: Size, layout and rate of the frames.
        clock: Seconds.
    """

    def __init__(
        self, folder: Path, encoding: Encoding, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._folder, self._encoding, self._clock = folder, encoding, clock
        self._began, self._spent = clock(), 0.0
        self._out: Any = None
        self._broken = False

    def add(self, number: int, frame: VideoFrame) -> None:
        """Write one more frame; it must follow the one before."""
        start = self._clock()
        if self._broken or self._spent > max(ALLOWANCE, SHARE * (start - self._began)):
            self._broken = True  # what follows a gap is of no use
            return
        try:
            self._write(number, frame)
        except (av().error.FFmpegError, OSError):  # a full disk: the segment needs the room
            self._broken = True
            self._close()
            self.path.unlink(missing_ok=True)
        self._spent += self._clock() - start

    def restart(self) -> None:
        """Close the file: another segment begins."""
        self._close()
        self._broken = False

    def _write(self, number: int, frame: VideoFrame) -> None:
        if self._out is None:
            self.path = self._folder / f"computed-{number:08}.nut"
            options = {"flush_packets": "1"}
            self._out = av().open(f"file:{self.path}", "w", container_options=options)
            size = {"width": self._encoding.width, "height": self._encoding.height}
            form = {"pix_fmt": self._encoding.pix_fmt, "options": {"level": "3", "slicecrc": "1"}}
            self._stream = self._out.add_stream("ffv1", rate=25, **size, **form)
            self._first = number
        frame.pts, frame.time_base = number - self._first, 1 / self._stream.average_rate
        self._out.mux(self._stream.encode(frame))

    def _close(self) -> None:
        out, self._out = self._out, None
        if out is not None:
            with suppress(Exception):
                out.mux(self._stream.encode(None))
                out.close()


def count_frames(path: Path) -> int:
    """Frames that can be decoded from the beginning of a file that may have been cut."""
    count = 0
    with suppress(av().error.FFmpegError, ValueError):
        for _ in read_frames_of(path):
            count += 1
    return count


def read_frames_of(path: Path) -> Iterator[VideoFrame]:
    """The frames of a file, as an encoder takes them.

    Raises:
        FFmpegError: The file is damaged from here on.
    """
    options = {"protocol_whitelist": "file", "err_detect": "crccheck+explode"}
    with av().open(f"file:{path}", format="nut", options=options) as file:
        for frame in file.decode(video=0):
            if frame.is_corrupt:
                return
            frame.pict_type = 0  # the encoder chooses
            yield frame


def count_packets(path: Path) -> int:
    """Frames of a complete file, undecoded."""
    with suppress(av().error.FFmpegError), av().open(f"file:{path}", format="nut") as file:
        return sum(1 for packet in file.demux(video=0) if packet.size)
    return 0
