"""Detect truncated video files by the sizes in their containers."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from agsr.video.boxes import EBML, SEGMENT, boxes, elements
from agsr.video.formats import Y4M_MAGIC

_UNKNOWN = (0, 0xFFFFFFFF)
"""Header sizes of an AVI that was written to a pipe."""


def is_truncated(path: Path, last: int) -> bool:
    """Return True if a file is shorter than its headers declare; FFmpeg doesn't report it.

    Args:
        path: A video.
        last: End of its last packet, bytes.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(16)
        if head.startswith(EBML):
            return size < _end_of_matroska(file, size)
        if head.startswith(b"RIFF"):
            length = int.from_bytes(head[4:8], "little")
            return length not in _UNKNOWN and size < 8 + length
        if head.startswith(Y4M_MAGIC):
            return size > last  # a partial frame
        return head[4:8] == b"ftyp" and size < _end_of_boxes(file, size)


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    """Return where the last box of an MP4 ends; of very many boxes, the last one visited."""
    return max((box.stop for box in boxes(file, 0, size)), default=0)


def _end_of_matroska(file: BinaryIO, size: int) -> int:
    """Return where the segment ends by its header; 0 if there is none."""
    try:
        return next((part.stop for kind, part in elements(file, 0, size) if kind == SEGMENT), 0)
    except IndexError:  # cut off within a header
        return 0
