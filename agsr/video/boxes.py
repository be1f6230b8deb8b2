"""Read the crop and XMP of a video file, which FFmpeg or PyAV doesn't report.

Boxes of MP4 and MOV, elements of MKV and chunks of AVI are found by seeking → `stored_crop` and
`stored_xmp`. Sources: ISO/IEC 14496-12, QuickTime File Format, RFC 9559, XMP Specification Part 3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

XMP_BOX: Final = b"uuid" + bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
"""Type and UUID of the top-level XMP box of MP4."""

MOST_PARTS = 1 << 17
"""Maximum number of boxes, elements or chunks visited per level, each by a seek: 18 hours in
fragments of one second. A file can hold one per 8 bytes."""
_MOST_XMP = 64 << 20
_VISUAL_ENTRY = 78
"""Bytes of a visual sample entry before its child boxes."""
EBML: Final = bytes.fromhex("1a45dfa3")
"""First bytes of Matroska files."""
SEGMENT, _TRACKS, _ENTRY, _VIDEO = 0x18538067, 0x1654AE6B, 0xAE, 0xE0
_FIRST_BOXES = (b"ftyp", b"moov", b"wide", b"mdat", b"free")
"""Types that files of MP4 and MOV begin with."""
_TYPE, _WIDTH, _HEIGHT, _BOTTOM, _TOP, _LEFT, _RIGHT = (
    *(0x83, 0xB0, 0xBA),
    *(0x54AA, 0x54BB, 0x54CC, 0x54DD),
)


class Crop(NamedTuple):
    """The visible part of the stored pixels."""

    left: int
    top: int
    width: int
    height: int
    whole: tuple[int, int]
    """Width and height of the stored picture."""


class Part(NamedTuple):
    """A box, an element or a chunk."""

    kind: bytes
    start: int
    """Offset of its content."""
    stop: int


def crop_by(clap: bytes, whole: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Parse a ``clap`` box, which encoders also write for their padding.


    Args:
        clap: The content of the box.
        whole: Width and height of the picture.

    Returns:
        Left, top, width and height; None if the whole picture is visible.

    Raises:
        ValueError, struct.error: The box contradicts itself or ends early.
    """
    numbers = struct.unpack_from(">IIIIiIiI", clap)
    if not all(numbers[1::2]):
        raise ValueError("a crop with denominator 0")
    width, height, right, down = map(Fraction, numbers[::2], numbers[1::2])
    if width == whole[0] and height == whole[1]:
        return None
    left, top = (whole[0] - width) / 2 + right, (whole[1] - height) / 2 + down
    return round(left), round(top), round(width), round(height)


def stored_crop(path: Path) -> Crop | None:
    """Return the container's crop of the first video track; None for the whole picture."""
    with path.open("rb") as file:
        try:
            head = file.read(12)
            if head[4:8] in _FIRST_BOXES:
                return _crop_of_mp4(file)
            if head.startswith(EBML):
                return _crop_of_matroska(file)
        except (struct.error, ValueError, IndexError):
            return None  # damaged; FFmpeg reports it
    return None


def stored_xmp(path: Path) -> bytes | None:
    """Return the XMP packet of an MP4, MOV or AVI file."""
    with path.open("rb") as file:
        try:
            head = file.read(12)
            if head.startswith(b"RIFF"):
                return _xmp_of_avi(file)
            if head[4:8] not in _FIRST_BOXES:
                return None
            for part in boxes(file, 0, _end(file)):
                if part.kind == b"uuid" and read_part(file, part, 16) == XMP_BOX[4:]:
                    return read_part(file, part, _MOST_XMP)[16:] or None
            found = next(inside(file, (b"moov", b"udta", b"XMP_")), None)
            return read_part(file, found, _MOST_XMP) or None if found else None
        except (struct.error, ValueError):
            return None


def _end(file: BinaryIO) -> int:
    return file.seek(0, 2)


def read_part(file: BinaryIO, part: Part, most: int) -> bytes:
    """Return the content of a box, at most ``most`` bytes of it."""
    file.seek(part.start)
    return file.read(min(part.stop - part.start, most))


def boxes(file: BinaryIO, place: int, stop: int) -> Iterator[Part]:
    """Yield the boxes of MP4 or MOV from ``place`` to ``stop``; the last may claim to end later."""
    for _ in range(MOST_PARTS):
        if place >= stop:
            return
        file.seek(place)
        size, kind, large = struct.unpack(">I4sQ", file.read(16).ljust(16, b"\0"))
        head, size = (16, large) if size == 1 else (8, size or stop - place)
        if size < head:
            return
        yield Part(kind, place + head, place + size)
        place += size


def inside(
    file: BinaryIO, kinds: tuple[bytes, ...], place: int = 0, stop: int | None = None
) -> Iterator[Part]:
    """Yield the boxes at a path of types."""
    for part in boxes(file, place, _end(file) if stop is None else stop):
        if part.kind == kinds[0] and len(kinds) == 1:
            yield part
        elif part.kind == kinds[0]:
            yield from inside(file, kinds[1:], part.start, part.stop)


def _crop_of_mp4(file: BinaryIO) -> Crop | None:
    for track in inside(file, (b"moov", b"trak")):
        media = next(inside(file, (b"mdia",), track.start, track.stop), None)
        if media is None:
            continue
        handler = next(inside(file, (b"hdlr",), media.start, media.stop), None)
        if handler is None or read_part(file, handler, 12)[8:] != b"vide":
            continue
        path = (b"minf", b"stbl", b"stsd")
        table = next(inside(file, path, media.start, media.stop), None)
        entry = next(boxes(file, table.start + 8, table.stop), None) if table else None
        if entry is None:
            return None
        whole = struct.unpack(">HH", read_part(file, entry, 28)[24:])
        inner = inside(file, (b"clap",), entry.start + _VISUAL_ENTRY, entry.stop)
        crop = crop_by(read_part(file, clap, 32), whole) if (clap := next(inner, None)) else None
        return _usable(crop, whole)
    return None


def _usable(crop: tuple[int, int, int, int] | None, whole: tuple[int, int]) -> Crop | None:
    """Return the crop if it is inside the picture and smaller than it."""
    if crop is None:
        return None
    left, top, width, height = crop
    inside = left >= 0 and top >= 0 and left + width <= whole[0] and top + height <= whole[1]
    return Crop(*crop, whole) if inside and min(width, height) > 0 and crop[2:] != whole else None


def elements(file: BinaryIO, place: int, stop: int) -> Iterator[tuple[int, Part]]:
    """Yield IDs and extents of EBML elements from ``place`` to ``stop``.

    One of unknown size ends at ``stop``; the last one may claim to end later.

    Raises:
        IndexError: A header is cut off.
    """
    for _ in range(MOST_PARTS):
        if place + 2 > stop:
            return
        file.seek(place)
        data = file.read(12)
        length = 9 - data[0].bit_length()
        number = int.from_bytes(data[:length], "big")
        size_length = 9 - data[length].bit_length()
        size = int.from_bytes(data[length : length + size_length], "big")
        size &= (1 << 7 * size_length) - 1
        start = place + length + size_length
        end = stop if size == (1 << 7 * size_length) - 1 else start + size
        yield number, Part(b"", start, end)
        place = end


def _crop_of_matroska(file: BinaryIO) -> Crop | None:
    for number, segment in elements(file, 0, _end(file)):
        if number != SEGMENT:
            continue
        for inner, tracks in elements(file, segment.start, segment.stop):
            if inner == _TRACKS:
                return _crop_of_tracks(file, tracks)
    return None


def _crop_of_tracks(file: BinaryIO, tracks: Part) -> Crop | None:
    for number, entry in elements(file, tracks.start, tracks.stop):
        parts = dict(elements(file, entry.start, entry.stop)) if number == _ENTRY else {}
        if not {_TYPE, _VIDEO} <= parts.keys() or _number(file, parts[_TYPE]) != 1:
            continue
        video = parts[_VIDEO]
        values = {n: _number(file, p) for n, p in elements(file, video.start, video.stop)}
        whole = values.get(_WIDTH, 0), values.get(_HEIGHT, 0)
        left, top = values.get(_LEFT, 0), values.get(_TOP, 0)
        width = whole[0] - left - values.get(_RIGHT, 0)
        return _usable((left, top, width, whole[1] - top - values.get(_BOTTOM, 0)), whole)
    return None


def _number(file: BinaryIO, part: Part) -> int:
    return int.from_bytes(read_part(file, part, 8), "big")


def _xmp_of_avi(file: BinaryIO) -> bytes | None:
    place, stop = 12, _end(file)
    for _ in range(MOST_PARTS):
        if place + 8 > stop:
            return None
        file.seek(place)
        kind, size = struct.unpack("<4sI", file.read(8))
        if kind == b"_PMX":
            return file.read(min(size, _MOST_XMP)) or None
        place += 8 + size + size % 2
    return None
