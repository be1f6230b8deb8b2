"""stdin and stdout as streams of frames: without buffers that outlive a broken pipe or Ctrl-C."""

from __future__ import annotations

import sys
from typing import Any

from agsr.media import Y4M_MAGIC

_LONGEST_HEADER = 1024


class Stdin:
    """stdin, of which the beginning may be looked at."""

    def __init__(self) -> None:
        # Not the buffer: a thread that waits for it would hold a lock that Python's end needs.
        self._raw: Any = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
        self.head = b""
        """What was read already."""
        self.header = b""
        """First line of a YUV4MPEG2 stream."""

    def begins_y4m(self) -> bool:
        """Whether a YUV4MPEG2 stream comes; waits for the first bytes, or for its header."""
        while not self._decided():
            more = self._raw.read(1)
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
        return self._raw.read(size) or b""


class Stdout:
    """stdout without a buffer, which would be written once more at Python's end."""

    def __init__(self) -> None:
        sys.stdout.flush()
        self._raw: Any = getattr(sys.stdout.buffer, "raw", sys.stdout.buffer)

    def write(self, data: bytes, /) -> int | None:
        """Write some of the bytes."""
        return self._raw.write(data)  # type: ignore[no-any-return]
