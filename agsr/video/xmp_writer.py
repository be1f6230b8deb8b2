"""Write an XMP packet into a complete MP4 or MOV file, as XMP Specification Part 3 places it.

The file of `agsr.video.mux` and the packet of `agsr.video.stream_copy.Plan` → the same file. MP4
has a ``uuid`` box behind all others; MOV has ``moov/udta/XMP_``, for which packets move backwards.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import BinaryIO, Final

from agsr.video.boxes import XMP_BOX, Part, boxes, inside, read_part

XMP_FORMS: Final = ("mp4", "mov")
"""FFmpeg's names of the containers that are written with XMP."""

_TABLES: Final = ((b"stco", "I"), (b"co64", "Q"))
"""Boxes of chunk offsets and the `struct` code of an offset."""
_BLOCK = 1 << 20


def write_xmp(path: Path, packet: bytes, form: str) -> None:
    """Add an XMP packet to a file that has none.

    A MOV file whose offsets would exceed their 32 bits has the box of MP4, which most readers find.

    Raises:
        OSError: The file can't be written.
    """
    with path.open("r+b") as file:
        if form == "mov" and _insert_into_movie(file, packet):
            return
        file.seek(0, 2)
        file.write(struct.pack(">I", 4 + len(XMP_BOX) + len(packet)) + XMP_BOX + packet)


def _insert_into_movie(file: BinaryIO, packet: bytes) -> bool:
    """Insert the packet into ``moov/udta``; return False if the file can't have it there."""
    movie = next((part for part in boxes(file, 0, file.seek(0, 2)) if part.kind == b"moov"), None)
    if movie is None:
        return False
    content = bytearray(read_part(file, movie, movie.stop - movie.start))
    box = _box(b"XMP_", packet)
    data = next(inside(io.BytesIO(content), (b"udta",)), None)
    box = box if data else _box(b"udta", box)
    try:
        _shift_chunks(content, movie.stop, len(box))
        size = struct.pack(">I", 8 + len(content) + len(box))
    except struct.error:  # more than 32 bits
        return False
    if data:
        struct.pack_into(">I", content, data.start - 8, 8 + data.stop - data.start + len(box))
    place = data.start if data else len(content)
    content[place:place] = box
    _make_room(file, movie.stop, len(box))
    file.seek(movie.start - 8)
    file.write(size + b"moov" + content)
    return True


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def _shift_chunks(movie: bytearray, place: int, distance: int) -> None:
    """Add ``distance`` to all chunk offsets from ``place`` on."""
    for kind, code in _TABLES:
        for table in inside(io.BytesIO(movie), (b"trak", b"mdia", b"minf", b"stbl", kind)):
            _shift_table(movie, table, code, place, distance)


def _shift_table(movie: bytearray, table: Part, code: str, place: int, distance: int) -> None:
    (count,) = struct.unpack_from(">I", movie, table.start + 4)
    layout = struct.Struct(f">{count}{code}")
    offsets = layout.unpack_from(movie, table.start + 8)
    moved = (offset + distance if offset >= place else offset for offset in offsets)
    layout.pack_into(movie, table.start + 8, *moved)


def _make_room(file: BinaryIO, place: int, size: int) -> None:
    """Move what follows ``place`` backwards by ``size`` bytes, from the end, in blocks."""
    stop = file.seek(0, 2)
    while stop > place:
        start = max(place, stop - _BLOCK)
        file.seek(start)
        data = file.read(stop - start)
        file.seek(start + size)
        file.write(data)
        stop = start
