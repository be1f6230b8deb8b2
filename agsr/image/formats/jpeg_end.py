"""Distinguish JPEG files that lack only the end marker from those that lack pixels.

Decoders fill in missing pixels silently. So a file without an end marker is decoded twice, with
different bits appended: if no pixel depends on them, none is missing.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Final

import numpy as np
from PIL import Image

_END: Final = b"\xff\xd9"
_PIXELS: Final = [bytes((37 * k + 11 * n + 5) % 251 for k in range(64)) for n in range(9)]
_MORE: Final = _PIXELS[8] + b"".join(bytes([0xFF, 0xD0 + n]) + _PIXELS[n] for n in range(8))
"""Pixel data, also after every restart marker."""
_STANDALONE: Final = (0x01, *range(0xD0, 0xDA))
_FRAMES: Final = (0xC0, 0xC1, 0xC2)
_SCAN = 0xDA
_HIGHEST = 64


def completed(content: bytes) -> Image.Image:
    """Decode a JPEG file that lacks an end marker.

    Raises:
        ValueError, OSError: Pixels are missing, or the file is damaged.
    """
    if not _has_all_scans(content):
        raise ValueError("scans are missing")
    plain, more = (_loaded(content + rest) for rest in (_END, _MORE + _END))
    if not np.array_equal(np.asarray(plain), np.asarray(more)):
        raise ValueError("pixels are missing")
    return plain


def _loaded(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content), formats=["JPEG"])
    image.load()
    return image


def _has_all_scans(content: bytes) -> bool:
    """Return True if every coefficient of every component is refined to its last bit."""
    components, done = set[int](), dict[tuple[int, int], int]()
    for marker, data in _segments(content):
        if marker in _FRAMES and len(data) > 5:
            components = set(data[6 : 6 + 3 * data[5] : 3])
        elif marker == _SCAN and data and len(data) >= 4 + 2 * data[0]:
            first, last, bits = data[1 + 2 * data[0] :][:3]
            for component in data[1 : 1 + 2 * data[0] : 2]:
                for number in range(first, min(last, _HIGHEST - 1) + 1):
                    done[component, number] = bits & 15
    wanted = {(c, number) for c in components for number in range(_HIGHEST)}
    return bool(wanted) and all(done.get(key) == 0 for key in wanted)


def _segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield markers with their segments, skipping pixel data."""
    place = 2
    while (place := content.find(b"\xff", place)) >= 0 and place + 4 <= len(content):
        marker = content[place + 1]
        if marker in (0, 0xFF) or marker in _STANDALONE:
            place += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", content, place + 2)
        yield marker, content[place + 4 : place + 2 + length]
        place += 2 + length
