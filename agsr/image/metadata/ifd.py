"""Read and write TIFF directories (TIFF 6.0, BigTIFF), of which EXIF blocks and TIFF files consist.

Values are bytes; nothing depends on their encoding. A truncated entry, or one of unknown type, is
lost without affecting others. See also `agsr.image.metadata.exif`.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

ASCII, SHORT, LONG, RATIONAL, UNDEFINED, LONG8 = 2, 3, 4, 5, 7, 16
"""Value types."""

_UNITS: Final = {
    **{1: (1, "B"), 2: (1, "c"), 3: (2, "H"), 4: (4, "I"), 5: (4, "I"), 6: (1, "b"), 7: (1, "c")},
    **{8: (2, "h"), 9: (4, "i"), 10: (4, "i"), 11: (4, "f"), 12: (8, "d"), 13: (4, "I")},
    **{16: (8, "Q"), 17: (8, "q"), 18: (8, "Q")},
}
"""Size of the byte-swapped unit and its `struct` format, by type."""

_PAIRS: Final = (5, 10)


@dataclass(frozen=True)
class Entry:
    """An entry of a directory."""

    kind: int
    """Value type, like `SHORT`."""
    data: bytes
    """The complete value, in the byte order of its block."""

    @property
    def count(self) -> int:
        """Number of values or characters."""
        return len(self.data) // _width(self.kind)

    def numbers(self, order: str) -> tuple[Fraction | float, ...]:
        """Return numeric values; empty for text, and for fractions with denominator 0."""
        unit, code = _UNITS[self.kind]
        if code == "c":
            return ()
        values = struct.unpack(f"{order}{len(self.data) // unit}{code}", self.data)
        if self.kind not in _PAIRS:
            return values
        pairs = list(zip(values[::2], values[1::2], strict=True))
        return tuple(Fraction(*pair) for pair in pairs) if all(b for _, b in pairs) else ()

    def swapped(self) -> Entry:
        """Return the entry in the other byte order."""
        unit = _UNITS[self.kind][0]
        units = (self.data[at : at + unit][::-1] for at in range(0, len(self.data), unit))
        return replace(self, data=b"".join(units)) if unit > 1 else self


Directory = dict[int, Entry]
"""Entries by tag."""


def entry_of(order: str, kind: int, *values: int) -> Entry:
    """Return an entry of numbers; a fraction is two numbers.

    >>> entry_of("<", SHORT, 1, 2).numbers("<")
    (1, 2)
    """
    return Entry(kind, struct.pack(f"{order}{len(values)}{_UNITS[kind][1]}", *values))


def read_directory(
    content: bytes,
    offset: int,
    order: str,
    *,
    big: bool = False,
    budget: list[int] | None = None,
    only: Container[int] | None = None,
) -> tuple[Directory, list[int], int]:
    """Read one directory.

    Args:
        content: The TIFF structure.
        offset: Offset of the directory.
        order: Byte order as in `struct`.
        big: Whether it is BigTIFF.
        budget: Limit for the bytes of all values, reduced by those read. Values don't overlap in
            valid files, so the size of the content suffices.
        only: Tags to read; None means all.

    Returns:
        The entries, the lost tags, and the offset of the next directory or 0.
    """
    budget = [len(content)] if budget is None else budget
    entries, lost = Directory(), list[int]()
    for tag, kind, count, at in rows_of(content, offset, order, big):
        if tag in entries or (only is not None and tag not in only):
            continue
        size = count * _width(kind) if kind in _UNITS else -1
        place = at if size <= (8 if big else 4) else number_at(content, at, order, big)
        data = content[place : place + size] if 0 <= size <= budget[0] else b""
        if size < 0 or len(data) != size:
            lost.append(tag)
            continue
        budget[0] -= size
        entries[tag] = Entry(kind, data)
    return entries, lost, _next(content, offset, order, big)


def rows_of(
    content: bytes, offset: int, order: str, big: bool
) -> Iterator[tuple[int, int, int, int]]:
    """Yield tag, type, count, and the position of the value or of its offset."""
    head, row = (8, 20) if big else (2, 12)
    for number in range(rows_at(content, offset, order, big)):
        at = offset + head + number * row
        tag, kind = struct.unpack_from(order + "HH", content, at)
        yield tag, kind, number_at(content, at + 4, order, big), at + (12 if big else 8)


def rows_at(content: bytes, offset: int, order: str, big: bool) -> int:
    """Return the number of rows that `rows_of` yields."""
    head, row = (8, 20) if big else (2, 12)
    if offset < 8 or offset + head > len(content):
        return 0
    count = struct.unpack_from(order + ("Q" if big else "H"), content, offset)[0]
    return int(min(count, (len(content) - offset - head) // row, 1 << 16))


def _next(content: bytes, offset: int, order: str, big: bool) -> int:
    head, row = (8, 20) if big else (2, 12)
    if offset < 8 or offset + head > len(content):
        return 0
    count = struct.unpack_from(order + ("Q" if big else "H"), content, offset)[0]
    at = offset + head + count * row
    return number_at(content, at, order, big) if at + (8 if big else 4) <= len(content) else 0


def number_at(content: bytes, at: int, order: str, big: bool) -> int:
    """Return the offset or count at a position; 0 beyond the end."""
    if at + (8 if big else 4) > len(content):
        return 0
    return int(struct.unpack_from(order + ("Q" if big else "I"), content, at)[0])


def write_directory(
    directory: Directory,
    offset: int,
    order: str,
    big: bool,
    fixed: Mapping[int, int],
) -> bytes:
    """Serialise a directory and its values for an offset; it is marked as the last.

    Args:
        directory: The entries.
        offset: File offset of the directory.
        order: Byte order as in `struct`.
        big: Whether to write BigTIFF.
        fixed: Offsets of values stored elsewhere, by tag.
    """
    inline, code = (8, "Q") if big else (4, "I")
    place = offset + _table(directory, big)
    rows, values = [struct.pack(order + ("Q" if big else "H"), len(directory))], list[bytes]()
    for tag, entry in sorted(directory.items()):
        head = struct.pack(f"{order}HH{code}", tag, entry.kind, entry.count)
        if len(entry.data) <= inline:
            rows.append(head + entry.data.ljust(inline, b"\0"))
        elif tag in fixed:
            rows.append(head + struct.pack(order + code, fixed[tag]))
        else:
            rows.append(head + struct.pack(order + code, place))
            values.append(entry.data + bytes(len(entry.data) % 2))
            place += len(values[-1])
    return b"".join([*rows, bytes(inline), *values])


def length_of(directory: Directory, big: bool, fixed: Mapping[int, int]) -> int:
    """Return the length of `write_directory`'s result."""
    inline = 8 if big else 4
    sizes = (len(e.data) for tag, e in directory.items() if tag not in fixed)
    return _table(directory, big) + sum(size + size % 2 for size in sizes if size > inline)


def _table(directory: Directory, big: bool) -> int:
    return 16 + 20 * len(directory) if big else 6 + 12 * len(directory)


def _width(kind: int) -> int:
    return _UNITS[kind][0] * (2 if kind in _PAIRS else 1)
