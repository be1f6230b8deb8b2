"""Read the quantizer of AVIF from its AV1 key frame (AV1 bitstream specification, 5.5).

Data flow: boxes of the file → data of the primary item → sequence and frame header →
``base_q_idx``. Only the fields before it are parsed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

COARSEST_STEP: Final = 255
"""Largest quantizer index."""

_SEQUENCE, _FRAME_HEADER, _FRAME = 1, 3, 6
_SELECT = 2
"""Value of a sequence header that lets each frame select the coding tool."""
_FULL_BOX = 4
"""Bytes of version and flags."""


def quantizer(content: bytes) -> int:
    """Return ``base_q_idx`` of the primary item: 0 (lossless or finest) to 255.

    Args:
        content: An AVIF file.

    Raises:
        ValueError: The primary picture is not a single AV1 key frame (for example a tile grid).
        IndexError: The file ends too early.
    """
    sequence: _Sequence | None = None
    for kind, data in _units(_primary_item(content)):
        if kind == _SEQUENCE:
            sequence = _sequence(_Bits(data))
        elif kind in (_FRAME, _FRAME_HEADER) and sequence is not None:
            return _base_index(_Bits(data), sequence)
    raise ValueError("no AV1 frame")


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def read(self, count: int) -> int:
        number = 0
        for _ in range(count):
            byte = self._data[self._at >> 3]
            number = number << 1 | (byte >> (7 - (self._at & 7)) & 1)
            self._at += 1
        return number

    def flag(self) -> bool:
        return bool(self.read(1))


def _boxes(content: bytes) -> dict[bytes, bytes]:
    """Return a container's boxes by type; the first of each."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at + 8 <= len(content):
        size, kind = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8]
        start = at + 8
        if size == 1:
            size, start = int.from_bytes(content[at + 8 : at + 16], "big"), at + 16
        end = at + size if size else len(content)
        if end < start:
            break
        found.setdefault(kind, content[start:end])
        at = end
    return found


def _primary_item(content: bytes) -> bytes:
    meta = _boxes(_boxes(content).get(b"meta", b"")[_FULL_BOX:])
    if b"pitm" not in meta or b"iloc" not in meta:
        raise ValueError("no primary item")
    wide = meta[b"pitm"][0] > 0
    wanted = int.from_bytes(meta[b"pitm"][_FULL_BOX : _FULL_BOX + (4 if wide else 2)], "big")
    for item, extents in _locations(meta[b"iloc"]):
        if item == wanted:
            return b"".join(content[start : start + size] for start, size in extents)
    raise ValueError("the primary item has no location in the file")


def _locations(box: bytes) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Yield each item's ID with offset and length of its extents (ISO/IEC 14496-12, 8.11.3)."""
    version, bits = box[0], _Bits(box[_FULL_BOX:])
    offset, length, base, index = (8 * bits.read(4) for _ in range(4))
    for _ in range(bits.read(32 if version == 2 else 16)):
        item = bits.read(32 if version == 2 else 16)
        method = bits.read(16) & 15 if version else 0
        bits.read(16)  # data reference
        start = bits.read(base)
        extents = []
        for _ in range(bits.read(16)):
            bits.read(index if version else 0)
            extents.append((start + bits.read(offset), bits.read(length)))
        if not method:  # otherwise not in the file itself
            yield item, extents


def _units(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and payload of each open bitstream unit."""
    at = 0
    while at < len(data):
        header = data[at]
        at += 1 + (header >> 2 & 1)
        size = len(data) - at
        if header & 2:
            size, at = _leb128(data, at)
        yield header >> 3 & 15, data[at : at + size]
        at += size


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    """Return a number and the position after it."""
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128 or shift > 56:
            return number, at


@dataclass(frozen=True)
class _Sequence:
    """Fields of the sequence header that frame headers depend on."""

    reduced: bool
    width_bits: int
    height_bits: int
    width: int
    height: int
    frame_id_bits: int
    large_blocks: bool
    screen_tools: int
    integer_motion: int
    order_hint_bits: int
    superres: bool


def _sequence(bits: _Bits) -> _Sequence:
    bits.read(3 + 1)  # profile, still picture
    reduced = bits.flag()
    if reduced:
        bits.read(5)
    else:
        _operating_points(bits)
    width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
    width, height = bits.read(width_bits) + 1, bits.read(height_bits) + 1
    frame_id_bits = 0
    if not reduced and bits.flag():
        frame_id_bits = bits.read(4) + 2 + bits.read(3) + 1
    large_blocks = bits.flag()
    bits.read(2)  # intra filters
    tools = (_SELECT, _SELECT, 0) if reduced else _tools(bits)
    superres = bits.flag()
    return _Sequence(
        *(reduced, width_bits, height_bits, width, height, frame_id_bits),
        *(large_blocks, *tools, superres),
    )


def _operating_points(bits: _Bits) -> None:
    if bits.flag():
        raise ValueError("timing information is not supported")
    delays = bits.flag()
    for _ in range(bits.read(5) + 1):
        bits.read(12)
        if bits.read(5) > 7:
            bits.read(1)
        if delays and bits.flag():
            bits.read(4)


def _tools(bits: _Bits) -> tuple[int, int, int]:
    """Return the two screen-content settings and the number of order hint bits."""
    bits.read(4)  # compounds, warped motion, dual filter
    order_hint = bits.flag()
    if order_hint:
        bits.read(2)
    screen_tools = _SELECT if bits.flag() else bits.read(1)
    integer_motion = _SELECT
    if screen_tools and not bits.flag():
        integer_motion = bits.read(1)
    return screen_tools, integer_motion, bits.read(3) + 1 if order_hint else 0


def _base_index(bits: _Bits, sequence: _Sequence) -> int:
    """Read a key frame's header up to ``base_q_idx``."""
    if not sequence.reduced and bits.read(4) != 0b0001:  # shown for the first time, a key frame
        raise ValueError("not a shown key frame")
    fixed_cdf = bits.flag()
    screen_tools = bits.flag() if sequence.screen_tools == _SELECT else bool(sequence.screen_tools)
    if screen_tools and sequence.integer_motion == _SELECT:
        bits.read(1)
    bits.read(sequence.frame_id_bits)
    other_size = not sequence.reduced and bits.flag()
    bits.read(sequence.order_hint_bits)
    width, height = sequence.width, sequence.height
    if other_size:
        width = bits.read(sequence.width_bits) + 1
        height = bits.read(sequence.height_bits) + 1
    if sequence.superres and bits.flag():
        raise ValueError("AV1 super-resolution is not supported")
    if bits.flag():
        bits.read(32)  # size to be shown at
    if screen_tools:
        bits.read(1)  # copies within the frame
    if not sequence.reduced and not fixed_cdf:
        bits.read(1)
    _tiles(bits, width, height, 7 if sequence.large_blocks else 6)
    return bits.read(8)


def _tiles(bits: _Bits, width: int, height: int, block: int) -> None:
    """Skip the tile layout; ``block`` is log2 of the superblock side."""
    columns, rows = (-(-(-(-side // 8) * 8) // (1 << block)) for side in (width, height))
    least_columns = _log2(4096 >> block, columns)
    least = max(least_columns, _log2(4096 * 2304 >> 2 * block, rows * columns))
    if not bits.flag():
        raise ValueError("tiles of different sizes are not supported")
    wide = _increments(bits, least_columns, _log2(1, min(columns, 64)))
    high = _increments(bits, max(least - wide, 0), _log2(1, min(rows, 64)))
    if wide or high:
        bits.read(wide + high + 2)


def _increments(bits: _Bits, start: int, most: int) -> int:
    while start < most and bits.flag():
        start += 1
    return start


def _log2(unit: int, wanted: int) -> int:
    """Return the smallest k with ``unit << k >= wanted``."""
    power = 0
    while unit << power < wanted:
        power += 1
    return power
