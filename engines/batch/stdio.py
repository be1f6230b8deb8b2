"""stdin and stdout as source and target: videos unbuffered, images as whole files.

Without a buffer, nothing is left to flush after a broken pipe or Ctrl-C.
"""

from __future__ import annotations

import select
import sys
import tempfile
from functools import partial
from typing import Any, BinaryIO, cast

from agsr.errors import ImageError, VideoError
from agsr.image.encode import write_encoded
from agsr.image.picture import RowBands
from agsr.system.text import first_line
from agsr.video.formats import Y4M_MAGIC

PIPED = 1 << 20
"""Bytes that are read from stdin, or written to stdout, at a time."""

_IN_MEMORY = 1 << 26
"""Bytes of a result for stdout that are buffered in memory; larger results go to a file."""

_LONGEST_HEADER = 1024


class Stdin:
    """Unbuffered stdin with peeking. Reads as empty when stdin is closed."""

    def __init__(self) -> None:
        # Not the buffer: a thread waiting on it would hold a lock needed at interpreter exit.
        self._raw: Any = None if sys.stdin is None else _unbuffered(sys.stdin)
        self.head = b""
        """Bytes peeked but not yet consumed."""
        self.header = b""
        """First line of a YUV4MPEG2 stream."""

    def begins_y4m(self) -> bool:
        """Return True if stdin is a YUV4MPEG2 stream; waits for its magic and header line."""
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
        """Read the available bytes, at most ``size``; empty at the end."""
        if self.head:
            data, self.head = self.head[:size], self.head[size:]
            return data
        return self._more(size)

    def _more(self, size: int) -> bytes:
        if self._raw is None:
            return b""
        while (data := self._raw.read(size)) is None:  # non-blocking, and empty
            select.select([self._raw], [], [])
        return bytes(data)


class Stdout:
    """Unbuffered stdout; a buffer would be flushed again at interpreter exit.

    Raises:
        VideoError: stdout is closed.
    """

    def __init__(self) -> None:
        if sys.stdout is None:
            raise VideoError("-: stdout is closed")
        sys.stdout.flush()
        self._raw: Any = _unbuffered(sys.stdout)

    def write(self, data: bytes, /) -> int:
        """Write some of the bytes as soon as possible, and return how many."""
        while (written := self._raw.write(data)) is None:  # non-blocking, and full
            select.select([], [self._raw], [])
        return int(written)


def write_image(result: RowBands, suffix: str, quality: int | None) -> None:
    """Write an image file to stdout, once it is complete.

    Raises:
        ImageError: It can't be encoded or buffered, or stdout is closed or full.
    """
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as stream:
        try:
            write_encoded(result, cast("BinaryIO", stream), suffix, "-", quality)
        except OSError as error:
            raise ImageError(_temporary_full(error)) from None
        stream.seek(0)
        for content in iter(partial(stream.read, PIPED), b""):
            _write(content)


def _temporary_full(error: OSError) -> str:
    reason = error.strerror or first_line(error)
    return (
        f"-: can't be buffered in {tempfile.gettempdir()}: {reason}; set TMPDIR to another folder"
    )


def _write(content: bytes) -> None:
    if sys.stdout is None:
        raise ImageError("-: stdout is closed")
    left = memoryview(content)
    try:
        while left:  # unbuffered (PYTHONUNBUFFERED), writes can be partial without an error
            left = left[sys.stdout.buffer.write(left) :]
        sys.stdout.buffer.flush()
    except OSError as error:
        raise ImageError(f"-: can't be written: {error.strerror}") from None


def _unbuffered(stream: Any) -> Any:
    return getattr(stream.buffer, "raw", stream.buffer)
