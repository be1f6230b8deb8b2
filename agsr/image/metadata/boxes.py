"""Read the boxes of AVIF and HEIC files: picture properties and auxiliary contents.

Pillow reports neither colour code points, nor the depth, nor the unmodified EXIF block. Sources:
ISO/IEC 14496-12 and 23008-12 (HEIF), AVIF 1.1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from agsr.video.boxes import crop_by

_CONTAINERS: Final = {b"meta": 4, b"iprp": 0, b"ipco": 0}
"""Bytes before the child boxes, by type."""
_MOST = 4096
"""Maximum number of boxes per file."""
_GAIN_MAPS: Final = (b"urn:com:apple:photo:2020:aux:hdrgainmap",)
_DEPTH_MAPS: Final = (b"urn:mpeg:hevc:2015:auxid:2", b"urn:mpeg:mpegB:cicp:systems:auxiliary:depth")


@dataclass(frozen=True)
class Box:
    """A box inside a file."""

    kind: bytes
    start: int
    """Offset of its content."""
    stop: int

    def content(self, data: bytes) -> bytes:
        """Return the content of the box."""
        return data[self.start : self.stop]


@dataclass(frozen=True)
class BoxProperties:
    """Properties of the primary picture."""

    codes: tuple[int, int] | None = None
    """Colour primaries and transfer characteristics, ITU-T H.273."""
    depth: int = 8
    """Bits per channel."""
    exif: bytes | None = None
    """A TIFF structure."""
    aspect: tuple[int, int] | None = None
    """Pixel aspect ratio: width and height."""
    levels: tuple[tuple[str, bytes], ...] = ()
    """HDR light levels, as PNG chunks ``mDCV`` and ``cLLI``."""
    lost: tuple[str, ...] = ()
    """Auxiliary contents that are not carried over: gain map, depth map."""
    quarters: int = 0
    """Quarter turns for display, 0 to 3."""
    mirrored: bool = False
    crop: tuple[int, int, int, int] | None = None
    """Left, top, width and height of the visible part; None for all."""


def read_boxes(data: bytes) -> BoxProperties:
    """Read the boxes of a file, and of damaged ones as much as possible.

    Raises:
        ValueError, struct.error: The boxes are inconsistent.
    """
    boxes = list(_walk(data))
    properties = _properties(data, boxes)
    depth = max([8, *(_depth(kind, content) for kind, content in properties)])
    codes, aspect, levels, quarters = None, None, list[tuple[str, bytes]](), 0
    for kind, content in properties:
        if kind == b"colr" and content[:4] == b"nclx" and len(content) >= 8:
            codes = struct.unpack_from(">HH", content, 4)
        elif kind == b"pasp" and len(content) >= 8:
            aspect = struct.unpack_from(">II", content)
        elif kind in (b"clli", b"mdcv"):
            levels += _levels(kind, content)
        elif kind == b"irot" and content:
            quarters += content[0] & 3
    by_kind = dict(properties)
    return BoxProperties(
        *(
            codes,
            depth,
            _exif(data, boxes),
            aspect,
            tuple(levels),
            _auxiliary_contents(data, boxes),
        ),
        *(quarters % 4, b"imir" in by_kind, _crop(by_kind)),
    )


def place_of_codes(data: bytes) -> int | None:
    """Return the offset of the primary picture's code points, two 16-bit numbers."""
    for box in _walk(data):
        if box.kind == b"colr" and data[box.start : box.start + 4] == b"nclx":
            return box.start + 4
    return None


def _walk(data: bytes) -> Iterator[Box]:
    """Yield all boxes, parents before children."""
    waiting, count = [(0, len(data))], 0
    while waiting:
        place, stop = waiting.pop()
        while place + 8 <= stop and count < _MOST:
            size, kind = struct.unpack_from(">I4s", data, place)
            head = 8
            if size == 1 and place + 16 <= stop:
                size, head = struct.unpack_from(">Q", data, place + 8)[0], 16
            end = stop if size == 0 else place + size
            if size and size < head:
                return
            count += 1
            box = Box(kind, place + head, min(end, stop))
            yield box
            if kind in _CONTAINERS:
                waiting.append((box.start + _CONTAINERS[kind], box.stop))
            place = end


def _of(boxes: list[Box], kind: bytes, data: bytes) -> bytes:
    return next((box.content(data) for box in boxes if box.kind == kind), b"")


def _properties(data: bytes, boxes: list[Box]) -> list[tuple[bytes, bytes]]:
    """Return type and content of the primary picture's properties."""
    container = next((box for box in boxes if box.kind == b"ipco"), None)
    if container is None:
        return []
    inside = [box for box in boxes if container.start <= box.start and box.stop <= container.stop]
    inside = sorted((box for box in inside if box is not container), key=lambda box: box.start)
    wanted = _associated(_of(boxes, b"ipma", data), _primary(_of(boxes, b"pitm", data)))
    return [
        (inside[number - 1].kind, inside[number - 1].content(data))
        for number in wanted
        if 0 < number <= len(inside)
    ]


def _crop(properties: dict[bytes, bytes]) -> tuple[int, int, int, int] | None:
    clap, size = properties.get(b"clap"), properties.get(b"ispe")
    if clap is None or size is None:
        return None
    return crop_by(clap, struct.unpack_from(">II", size, 4))


def _primary(content: bytes) -> int:
    if len(content) < 6:
        return 0
    code = ">I" if content[0] and len(content) >= 8 else ">H"
    return int(struct.unpack_from(code, content, 4)[0])


def _associated(content: bytes, item: int) -> list[int]:
    """Return the indices (from 1) of an item's properties from an ``ipma`` box."""
    if len(content) < 8:
        return []
    wide, (count,), place = content[3] & 1, struct.unpack_from(">I", content, 4), 8
    for _ in range(min(count, _MOST)):
        found = struct.unpack_from(">I" if content[0] else ">H", content, place)[0]
        place += 4 if content[0] else 2
        number = content[place]
        size = 2 if wide else 1
        cells = [content[place + 1 + n * size :][:size] for n in range(number)]
        if found == item:
            mask = 0x7FFF if wide else 0x7F
            return [int.from_bytes(cell, "big") & mask for cell in cells]
        place += 1 + number * size
    return []


def _depth(kind: bytes, content: bytes) -> int:
    if kind == b"pixi" and len(content) > 5:
        return max(content[5 : 5 + content[4]], default=8)
    if kind == b"av1C" and len(content) > 2 and content[2] & 0x40:
        return 12 if content[2] & 0x20 else 10
    return 8


def _levels(kind: bytes, content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield light levels as PNG chunks."""
    if kind == b"clli" and len(content) >= 4:
        most, average = struct.unpack_from(">HH", content)
        yield "cLLI", struct.pack(">II", most * 10_000, average * 10_000)
    elif kind == b"mdcv" and len(content) >= 24:
        green, blue, red = content[:4], content[4:8], content[8:12]
        yield "mDCV", red + green + blue + content[12:24]


def _exif(data: bytes, boxes: list[Box]) -> bytes | None:
    """Return the EXIF block without its offset prefix."""
    items = list(_items(_of(boxes, b"iinf", data), b"Exif"))
    describing = _describing_items(_of(boxes, b"iref", data), _primary(_of(boxes, b"pitm", data)))
    item = next((item for item in items if item in describing), None)
    if item is None and len(items) == 1 and not describing:
        item = items[0]
    if item is None:
        return None
    content = _located(data, boxes, item)
    offset = int.from_bytes(content[:4], "big")
    return content[4 + offset :] or None


def _describing_items(content: bytes, item: int) -> set[int]:
    """Return the IDs of items that describe another, from an ``iref`` box."""
    found, place = set[int](), 4
    size = 4 if content[:1] > b"\0" else 2
    while place + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        if length < 8:
            break
        reader = _Reader(content[: place + length], place + 8)
        if kind == b"cdsc":
            source = reader.number(size)
            targets = [reader.number(size) for _ in range(reader.number(2))]
            found |= {source} if item in targets else set()
        place += length
    return found


def _items(content: bytes, wanted: bytes) -> Iterator[int]:
    """Yield the IDs of items of a type, from an ``iinf`` box."""
    place = 8 if content[:1] > b"\0" else 6
    while place + 20 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, place)
        version = content[place + 8]
        if size < 20 or kind != b"infe":
            return
        if version >= 2:
            wide = version > 2
            (number,) = struct.unpack_from(">I" if wide else ">H", content, place + 12)
            start = place + (18 if wide else 16)
            if content[start : start + 4] == wanted:
                yield number
        place += size


def _located(data: bytes, boxes: list[Box], item: int) -> bytes:
    """Return the bytes of an item, located by an ``iloc`` box."""
    content = _of(boxes, b"iloc", data)
    if len(content) < 8:
        return b""
    version, sizes = content[0], (content[4] >> 4, content[4] & 15, content[5] >> 4)
    index = content[5] & 15 if version else 0
    reader = _Reader(content, 6)
    for _ in range(min(reader.number(4 if version == 2 else 2), _MOST)):
        number = reader.number(4 if version == 2 else 2)
        method = reader.number(2) & 15 if version else 0
        reader.number(2)
        base, extents = reader.number(sizes[2]), list[tuple[int, int]]()
        for _ in range(min(reader.number(2), _MOST)):
            reader.number(index)
            extents.append((base + reader.number(sizes[0]), reader.number(sizes[1])))
        if number == item and method == 0:
            return b"".join(data[start : start + size] for start, size in extents[:1])
        if number == item and method == 1:
            inner = _of(boxes, b"idat", data)
            return b"".join(inner[start : start + size] for start, size in extents[:1])
    return b""


@dataclass
class _Reader:
    """Reads consecutive big-endian numbers."""

    content: bytes
    place: int

    def number(self, size: int) -> int:
        """Read the next number of ``size`` bytes."""
        if self.place + size > len(self.content):
            raise ValueError("a box ends early")
        self.place += size
        return int.from_bytes(self.content[self.place - size : self.place], "big")


def _auxiliary_contents(data: bytes, boxes: list[Box]) -> tuple[str, ...]:
    kinds = [box.content(data)[4:] for box in boxes if box.kind == b"auxC"]
    found = set[str]()
    if any(kind.startswith(_GAIN_MAPS) for kind in kinds):
        found.add("gain map")
    if any(kind.startswith(_DEPTH_MAPS) for kind in kinds):
        found.add("depth map")
    if any(True for _ in _items(_of(boxes, b"iinf", data), b"tmap")):
        found.add("gain map")
    return tuple(sorted(found))
