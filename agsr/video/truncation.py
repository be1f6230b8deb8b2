"""Detect truncated video files by the sizes in their containers."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from agsr.video.formats import Y4M_MAGIC

MOST_BOXES = 1 << 17
"""Maximum number of top-level boxes visited, each by a seek: 18 hours in fragments of one second. A
file can hold one per 8 bytes; beyond the limit, only its packets show truncation."""

_UNKNOWN = (0, 0xFFFFFFFF)
"""Header sizes of an AVI that was written to a pipe."""

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def is_truncated(path: Path, last: int) -> bool:
    """Return True if a file is shorter than its headers declare; FFmpeg doesn't report it.

    Args:
        path: A video.
        last: End of its last packet, bytes.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(4096)
        if head.startswith(_EBML):
            return size < _end_of_matroska(head)
        if head.startswith(b"RIFF"):
            length = int.from_bytes(head[4:8], "little")
            return length not in _UNKNOWN and size < 8 + length
        if head.startswith(Y4M_MAGIC):
            return size > last  # a partial frame
        return head[4:8] == b"ftyp" and size < _end_of_boxes(file, size)


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    """Return where the last box of an MP4 ends; the file's size if it has very many boxes."""
    at = visited = 0
    while at < size:
        visited += 1
        if visited > MOST_BOXES:
            return size
        file.seek(at)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:  # 0: to the end of the file
            return size
        at += length
    return at


def _end_of_matroska(head: bytes) -> int:
    """Return the segment's end by its header; 0 if unknown."""
    size, start = _vint(head, len(_EBML))
    at = start + size
    if head[at : at + 4] != _SEGMENT:
        return 0
    size, start = _vint(head, at + 4)
    unknown = (1 << 7 * (start - at - 4)) - 1  # of a recording that was never closed
    return 0 if size == unknown else start + size


def _vint(data: bytes, at: int) -> tuple[int, int]:
    """Return the Matroska variable-length number at a position, and the next position."""
    length = 9 - data[at].bit_length() if at < len(data) and data[at] else 1
    value = int.from_bytes(data[at : at + length], "big")
    return value & ((1 << 7 * length) - 1), at + length
