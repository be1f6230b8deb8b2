"""Parse and write EXIF blocks entry by entry (EXIF 3.0).

Unchanged values stay identical byte for byte, whatever their encoding. `agsr.image.metadata`
decides which entries to preserve; `agsr.image.formats.tiff_writer` writes the same directories to
TIFF files.
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
"""Prefix of the EXIF block's TIFF structure in JPEG and Pillow."""

DETAILS, GPS, INTEROPERABILITY, MAKER_NOTE = 0x8769, 0x8825, 0xA005, 0x927C
ORIENTATION: Final = 274

_LARGEST_BLOCK: Final = 65_000
"""Bytes; maker notes beyond this offset may move."""


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
    """Offset of the maker note, to which offsets inside it refer for some cameras."""
    lost: tuple[int, ...] = ()
    """Tags that were truncated or of unknown type."""

    @property
    def empty(self) -> bool:
        """Whether the block has no entries."""
        return not (self.main or self.details or self.gps or self.interoperability)

    def entry(self, kind: int, *values: int) -> Entry:
        """Return an entry in this block's byte order."""
        return entry_of(self.order, kind, *values)

    def little_endian(self) -> Exif:
        """Return the block in little-endian order, as TIFF files are written here."""
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
        """Return the block after `HEADER`, without a thumbnail."""
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
        """Serialise all directories, each followed by its values.

        Args:
            offset: File offset of the first directory.
            big: Write BigTIFF.
            fixed: Offsets of values stored elsewhere, by tag.
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
        """Return the required offset of the maker note; 0 for any."""
        note, place = self.details.get(MAKER_NOTE), self.maker_note_at or 0
        if note is None or place < 8 or place + len(note.data) > _LARGEST_BLOCK:
            return 0
        return place if len(note.data) > 4 else 0


def parse_exif(data: bytes) -> Exif:
    """Parse an EXIF block, with or without `HEADER`; truncated entries are lost."""
    content = data[len(HEADER) :] if data.startswith(HEADER) else data
    order = {b"II": "<", b"MM": ">"}.get(content[:2])
    if order is None or len(content) < 8:
        return Exif(lost=(DETAILS,) if content.strip(b"\0") else ())
    return read_exif(content, int(struct.unpack_from(order + "I", content, 4)[0]), order)


def read_exif(content: bytes, offset: int, order: str, *, big: bool = False) -> Exif:
    """Read a directory of a TIFF structure and the EXIF directories that it references."""
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
    """Return the offset of the maker note, if stored outside its entry."""
    for tag, _, count, at in rows_of(content, details, order, big):
        if tag == MAKER_NOTE and count > 8:
            return number_at(content, at, order, big)
    return None


def _swapped(directory: Directory) -> Directory:
    return {tag: entry.swapped() for tag, entry in directory.items()}
