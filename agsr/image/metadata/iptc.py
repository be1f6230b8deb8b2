"""IPTC records in Photoshop image resources, and as PNG raw-profile text."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

_MARK: Final = b"Photoshop 3.0\0"
_IPTC, _LARGEST_RESOURCE = 1028, 1 << 24
_PATHS: Final = range(2000, 2999)
LARGEST_SEGMENT: Final = 65_500
"""Bytes of records that fit into a JPEG segment."""


def resources(block: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield ID and data of Photoshop image resources, up to the first damaged one."""
    place = len(_MARK) if block.startswith(_MARK) else 0
    while block[place : place + 4] == b"8BIM" and place + 7 < len(block):
        number, length = struct.unpack_from(">HB", block, place + 4)
        place += 6 + (length + 2) // 2 * 2
        size = int.from_bytes(block[place : place + 4], "big")
        data = block[place + 4 : place + 4 + size]
        if len(data) != size or size > _LARGEST_RESOURCE:
            return
        yield number, data
        place += 4 + size + size % 2


def iptc_of(block: bytes) -> bytes | None:
    """Return the IPTC records in image resources."""
    return next((data for number, data in resources(block) if number == _IPTC), None)


def has_paths(numbers: Iterator[int]) -> bool:
    """Return True if resources with these IDs include clipping paths."""
    return any(number in _PATHS for number in numbers)


def resource(iptc: bytes) -> bytes:
    """Return IPTC records as an image resource."""
    head = b"8BIM" + struct.pack(">HHI", _IPTC, 0, len(iptc))
    return head + iptc + bytes(len(iptc) % 2)


def jpeg_segment(iptc: bytes) -> bytes:
    """Return IPTC records as a JPEG APP13 segment with its marker."""
    content = _MARK + resource(iptc)
    return b"\xff\xed" + struct.pack(">H", len(content) + 2) + content


def from_hexadecimal(text: str) -> bytes:
    """Parse a "raw profile" text: a name, a length and hexadecimal digits.

    Raises:
        ValueError: The text has another form.
    """
    _, _, rest = text.strip().partition("\n")
    length, _, digits = rest.strip().partition("\n")
    data = bytes.fromhex("".join(digits.split()))
    if len(data) < int(length):
        raise ValueError("cut off")
    return data[: int(length)]


def to_hexadecimal(kind: str, data: bytes) -> str:
    """Format data as a "raw profile" text, in lines of 72 digits.

    >>> from_hexadecimal(to_hexadecimal("iptc", b"abc"))
    b'abc'
    """
    digits = data.hex()
    lines = [digits[start : start + 72] for start in range(0, len(digits), 72)]
    return "\n".join(["", kind, f"{len(data):8}", *lines, ""])
