"""Read the quantizer of lossy WebP from its VP8 frame header (RFC 6386)."""

from __future__ import annotations

from typing import Final

COARSEST_STEP: Final = 127
"""Largest quantizer index; the finest is 0."""

_HEADER = 10
"""Bytes before the first partition: frame tag, start code, width and height."""

_START_CODE = b"\x9d\x01\x2a"


class _Bits:
    """VP8 boolean decoder for literals: every bit has probability 1/2."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 2
        self._value = int.from_bytes(data[:2], "big")
        self._range, self._count = 255, 0

    def read(self, bits: int) -> int:
        """Read an unsigned number."""
        number = 0
        for _ in range(bits):
            number = number << 1 | self._bit()
        return number

    def flag(self) -> bool:
        return bool(self._bit())

    def optional(self, bits: int) -> int | None:
        """Read a signed number that follows a flag; None if the flag is 0."""
        if not self.flag():
            return None
        number = self.read(bits)
        return -number if self.flag() else number

    def _bit(self) -> int:
        split = 1 + ((self._range - 1) * 128 >> 8)
        bit = self._value >= split << 8
        if bit:
            self._range -= split
            self._value -= split << 8
        else:
            self._range = split
        while self._range < 128:
            self._value, self._range, self._count = (
                self._value << 1,
                self._range << 1,
                self._count + 1,
            )
            if self._count == 8:
                self._value |= self._data[self._at]
                self._at, self._count = self._at + 1, 0
        return int(bit)


def quantizer(frame: bytes) -> int:
    """Return the mean quantizer index of a key frame's segments, 0 (finest) to 127.

    Args:
        frame: The first bytes of a ``VP8 `` chunk; 100 are enough.

    Raises:
        ValueError: Not a key frame.
        IndexError: Too few bytes.
    """
    if frame[0] & 1 or frame[3:6] != _START_CODE:
        raise ValueError("not a VP8 key frame")
    bits = _Bits(frame[_HEADER:])
    bits.read(2)  # colour space, clamping
    segments, absolute = _segments(bits)
    bits.read(1 + 6 + 3)  # loop filter: type, level, sharpness
    if bits.flag() and bits.flag():
        for _ in range(8):
            bits.optional(6)
    bits.read(2)  # partitions
    base = bits.read(7)
    steps = segments if absolute else [base + step for step in segments]
    return round(sum(steps) / len(steps)) if steps else base


def _segments(bits: _Bits) -> tuple[list[int], bool]:
    """Return the four segments' quantizers, if set, and whether they are absolute."""
    steps: list[int] = []
    absolute = False
    if not bits.flag():
        return steps, absolute
    has_map = bits.flag()
    if bits.flag():
        absolute = bits.flag()
        steps = [bits.optional(7) or 0 for _ in range(4)]
        for _ in range(4):
            bits.optional(6)
    if has_map:
        for _ in range(3):
            if bits.flag():
                bits.read(8)
    return steps, absolute
