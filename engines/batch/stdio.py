"""stdin and stdout as streams of frames: without buffers that outlive a broken pipe or Ctrl-C."""

from __future__ import annotations

import select
import sys
from typing import Any

from agsr.errors import VideoError
from agsr.video.formats import Y4M_MAGIC

_LONGEST_HEADER = 1024


class Stdin:
    """stdin, of which the beginning may be looked at; where it is closed, nothing comes."""

    def __init__(self) -> None:
        # Not the buffer: a thread that waits for it would hold a lock that Python's end needs.
        self._raw: Any = None if sys.stdin is None else _unbuffered(sys.stdin)
        self.head = b""
        """What was read already."""
        self.header = b""
        """First line of a YUV4MPEG2 stream."""

    def begins_y4m(self) -> bool:
        """Whether a YUV4MPEG2 stream comes; waits for the first bytes, or for its header."""
        while not self._decided():
            more = self._more(1)
            if not more:
                break
            self.head += more
        self.header = self.head
        return self.head.startswith(Y4M_MAGIC)

    def _decided(self) -> bool:
        if self.head.startswith(Y4M_MAGIC):
            return self.head.endswith(b"\n") or len(self.head) > _LONGEST_HEADER
        return not Y4M_MAGIC.startswith(self.head)

    def read(self, size: int, /) -> bytes:
        """What is there, at most so many bytes; none at the end."""
        if self.head:
            data, self.head = self.head[:size], self.head[size:]
            return data
        return self._more(size)

    def _more(self, size: int) -> bytes:
        if self._raw is None:
            return b""
        while (data := self._raw.read(size)) is None:  # it does not block, and nothing is there yet
            select.select([self._raw], [], [])
        return bytes(data)


class Stdout:
    """stdout without a buffer, which would be written once more at Python's end.

    Raises:
        VideoError: It is closed.
    """

    def __init__(self) -> None:
        if sys.stdout is None:
            raise VideoError("-: stdout is closed")
        sys.stdout.flush()
        self._raw: Any = _unbuffered(sys.stdout)

    def write(self, data: bytes, /) -> int:
        """Write some of the bytes, as soon as there is room for them; returns how many."""
        while (written := self._raw.write(data)) is None:  # it does not block, and is full
            select.select([], [self._raw], [])
        return int(written)


def _unbuffered(stream: Any) -> Any:
    return getattr(stream.buffer, "raw", stream.buffer)
