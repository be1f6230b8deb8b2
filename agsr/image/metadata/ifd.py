"""Directories of TIFF structures: read entry by entry, and written with their values behind them.

The value of an entry is bytes; nothing here depends on its encoding. An entry that is cut off or of
an unknown type is lost alone. EXIF blocks (`agsr.image.metadata.exif`) and TIFF files consist of
such directories (TIFF 6.0, BigTIFF).
"""

from __future__ import annotations

import struct
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

ASCII, SHORT, LONG, RATIONAL, UNDEFINED, LONG8 = 2, 3, 4, 5, 7, 16
"""Types of values."""

_UNITS: Final = {
    **{1: (1, "B"), 2: (1, "c"), 3: (2, "H"), 4: (4, "I"), 5: (4, "I"), 6: (1, "b"), 7: (1, "c")},
    **{8: (2, "h"), 9: (4, "i"), 10: (4, "i"), 11: (4, "f"), 12: (8, "d"), 13: (4, "I")},
    **{16: (8, "Q"), 17: (8, "q"), 18: (8, "Q")},
}
"""By type: bytes of what is swapped between byte orders, and its `struct` format."""

_PAIRS: Final = (5, 10)


@dataclass(frozen=True)
class Entry:
    """A value of a directory."""

    kind: int
    """Its type, like `SHORT`."""
    data: bytes
    """All of it, in the byte order of its block."""

    @property
    def count(self) -> int:
        """Numbers or characters."""
        return len(self.data) // _width(self.kind)

    def numbers(self, order: str) -> tuple[Fraction | float, ...]:
        """The values of a numeric type; none for text, and for fractions with denominator 0."""
        unit, code = _UNITS[self.kind]
        if code == "c":
            return ()
        values = struct.unpack(f"{order}{len(self.data) // unit}{code}", self.data)
        if self.kind not in _PAIRS:
            return values
        pairs = list(zip(values[::2], values[1::2], strict=True))
        return tuple(Fraction(*pair) for pair in pairs) if all(b for _, b in pairs) else ()

    def swapped(self) -> Entry:
        """The same value in the other byte order."""
        unit = _UNITS[self.kind][0]
        units = (self.data[at : at + unit][::-1] for at in range(0, len(self.data), unit))
        return replace(self, data=b"".join(units)) if unit > 1 else self


Directory = dict[int, Entry]
"""Entries by their tag."""


def entry_of(order: str, kind: int, *values: int) -> Entry:
    """Return an entry of numbers; a fraction is two of them."""
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
        offset: Of the directory.
        order: Byte order, as of `struct`.
        big: BigTIFF.
        budget: Bytes that values may have altogether, reduced by what is read. Values don't overlap
            in sound files, so the size of the content is enough.
        only: The tags that are read; None means all.

    Returns:
        The entries, tags that are lost, and the offset of the next directory or 0.
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
    """Yield tag, type, count, and the place of the value or of its offset."""
    head, row = (8, 20) if big else (2, 12)
    for number in range(rows_at(content, offset, order, big)):
        at = offset + head + number * row
        tag, kind = struct.unpack_from(order + "HH", content, at)
        yield tag, kind, number_at(content, at + 4, order, big), at + (12 if big else 8)


def rows_at(content: bytes, offset: int, order: str, big: bool) -> int:
    """Return how many rows `rows_of` yields."""
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
    """Return the offset or count at a place; 0 beyond the end."""
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
    """Return a directory and its values as they stand at an offset; no directory follows.

    Args:
        directory: The entries.
        offset: Of the directory in its file.
        order: Byte order, as of `struct`.
        big: BigTIFF.
        fixed: By tag, places of values that lie elsewhere.
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
    """Return how many bytes `write_directory` returns."""
    inline = 8 if big else 4
    sizes = (len(e.data) for tag, e in directory.items() if tag not in fixed)
    return _table(directory, big) + sum(size + size % 2 for size in sizes if size > inline)


def _table(directory: Directory, big: bool) -> int:
    return 16 + 20 * len(directory) if big else 6 + 12 * len(directory)


def _width(kind: int) -> int:
    return _UNITS[kind][0] * (2 if kind in _PAIRS else 1)
