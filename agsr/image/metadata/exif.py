"""EXIF blocks: parsed entry by entry, edited, and written again.

Values that nobody changes stay byte for byte what they are, whatever their encoding. What is kept,
`agsr.image.metadata` decides; `agsr.image.formats.tiff_writer` writes the same directories into
TIFF files (EXIF 3.0).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from agsr.image.metadata.ifd import (
    LONG,
    Directory,
    Entry,
    entry_of,
    length_of,
    number_at,
    read_directory,
    rows_of,
    write_directory,
)

HEADER: Final = b"Exif\x00\x00"
"""Precedes the TIFF structure that EXIF is, in JPEG and in Pillow."""

DETAILS, GPS, INTEROPERABILITY, MAKER_NOTE = 0x8769, 0x8825, 0xA005, 0x927C
ORIENTATION: Final = 274

_LARGEST_BLOCK: Final = 65_000
"""Bytes; a maker note that lies farther on may move."""


@dataclass(frozen=True)
class Exif:
    """The directories of an EXIF block."""

    order: str = "<"
    """Byte order, as of `struct`."""
    main: Directory = field(default_factory=dict)
    details: Directory = field(default_factory=dict)
    gps: Directory = field(default_factory=dict)
    interoperability: Directory = field(default_factory=dict)
    maker_note_at: int | None = None
    """Place of the maker note, from which some cameras count the places inside it."""
    lost: tuple[int, ...] = ()
    """Tags that were cut off, or of an unknown type."""

    @property
    def empty(self) -> bool:
        """Whether it holds nothing."""
        return not (self.main or self.details or self.gps or self.interoperability)

    def entry(self, kind: int, *values: int) -> Entry:
        """A value in this byte order."""
        return entry_of(self.order, kind, *values)

    def little_endian(self) -> Exif:
        """The same block in the byte order of the TIFF files that are written here."""
        if self.order == "<":
            return self
        return replace(
            self,
            order="<",
            main=_swapped(self.main),
            details=_swapped(self.details),
            gps=_swapped(self.gps),
            interoperability=_swapped(self.interoperability),
        )

    def to_bytes(self) -> bytes:
        """The block behind `HEADER`, without a thumbnail."""
        fixed = {MAKER_NOTE: place} if (place := self._note_place()) else {}
        note = self.details[MAKER_NOTE].data if fixed else b""
        start = 8
        if fixed and place < start + len(self.directories(start, fixed=fixed)):
            start = place + len(note) + len(note) % 2
        mark = (b"II" if self.order == "<" else b"MM") + struct.pack(self.order + "HI", 42, start)
        content = bytearray(mark.ljust(start, b"\0")) + self.directories(start, fixed=fixed)
        if fixed:
            content.extend(bytes(max(0, place + len(note) - len(content))))
            content[place : place + len(note)] = note
        return HEADER + bytes(content)

    def directories(
        self, offset: int, *, big: bool = False, fixed: Mapping[int, int] | None = None
    ) -> bytes:
        """All directories as they stand in a file, each with its values behind it.

        Args:
            offset: Of the first one, in the file.
            big: Write BigTIFF.
            fixed: By tag, places of values that lie elsewhere.
        """
        fixed, main, details = fixed or {}, dict(self.main), dict(self.details)
        inner = list[tuple[Directory, int, Directory]]()
        for parent, tag, child in (
            (details, INTEROPERABILITY, self.interoperability),
            (main, DETAILS, details),
            (main, GPS, self.gps),
        ):
            parent.pop(tag, None)
            if child:
                parent[tag] = self.entry(LONG, 0)
                inner.append((parent, tag, child))
        place = offset + length_of(main, big, fixed)
        for parent, tag, child in inner:
            parent[tag] = self.entry(LONG, place)
            place += length_of(child, big, fixed)
        content = b""
        for directory in (main, *(child for _, _, child in inner)):
            content += write_directory(directory, offset + len(content), self.order, big, fixed)
        return content

    def _note_place(self) -> int:
        """Where the maker note has to stay; 0 for anywhere."""
        note, place = self.details.get(MAKER_NOTE), self.maker_note_at or 0
        if note is None or place < 8 or place + len(note.data) > _LARGEST_BLOCK:
            return 0
        return place if len(note.data) > 4 else 0


def parse_exif(data: bytes) -> Exif:
    """Read the bytes of an EXIF block, with or without `HEADER`; what is cut off is lost."""
    content = data[len(HEADER) :] if data.startswith(HEADER) else data
    order = {b"II": "<", b"MM": ">"}.get(content[:2])
    if order is None or len(content) < 8:
        return Exif(lost=(DETAILS,) if content.strip(b"\0") else ())
    return read_exif(content, int(struct.unpack_from(order + "I", content, 4)[0]), order)


def read_exif(content: bytes, offset: int, order: str, *, big: bool = False) -> Exif:
    """Read a directory of a TIFF structure, and the directories of EXIF to which it points."""
    budget = [len(content)]

    def read(parent: Directory, tag: int) -> tuple[Directory, int]:
        pointer = parent.pop(tag, None)
        place = int((pointer.numbers(order) or (0,))[0]) if pointer else 0
        found, more, _ = read_directory(content, place, order, big=big, budget=budget)
        lost.extend(more if found or pointer is None else [tag])
        return found, place

    main, lost, _ = read_directory(content, offset, order, big=big, budget=budget)
    details, place = read(main, DETAILS)
    gps, inner = read(main, GPS)[0], read(details, INTEROPERABILITY)[0]
    note_at = _place(content, place, order, big)
    return Exif(order, main, details, gps, inner, note_at, tuple(lost))


def _place(content: bytes, details: int, order: str, big: bool) -> int | None:
    """Where the maker note lies, if not within its entry."""
    for tag, _, count, at in rows_of(content, details, order, big):
        if tag == MAKER_NOTE and count > 8:
            return number_at(content, at, order, big)
    return None


def _swapped(directory: Directory) -> Directory:
    return {tag: entry.swapped() for tag, entry in directory.items()}
