"""stdin and stdout as streams of frames: without buffers that outlive a broken pipe or Ctrl-C."""

from __future__ import annotations

import sys
from typing import Any

from agsr.media import Y4M_MAGIC


class Stdin:
    """stdin, of which the beginning may be looked at."""

    def __init__(self) -> None:
        # Not the buffer: a thread that waits for it would hold a lock that Python's end needs.
        self._raw: Any = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
        self.head = b""
        """What was read already."""

    def begins_y4m(self) -> bool:
        """Whether a YUV4MPEG2 stream comes; waits for the first bytes."""
        while Y4M_MAGIC.startswith(self.head) and len(self.head) < len(Y4M_MAGIC):
            more = self._raw.read(len(Y4M_MAGIC) - len(self.head))
            if not more:
                break
            self.head += more
        return self.head == Y4M_MAGIC

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
