"""Select the main page of a TIFF file, and read the metadata in its directory.

Decoders start with the first page, which may be a thumbnail. So they receive the file with a header
that points to the main page.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from agsr.image.metadata.colour import Colour, usable_chromaticities
from agsr.image.metadata.exif import Exif, read_exif
from agsr.image.metadata.exif_changes import (
    NO_UNIT,
    RESOLUTION_UNIT,
    STRUCTURE,
    densities_of,
    dpi_of,
    numbers,
    orientation_of,
)
from agsr.image.metadata.ifd import Directory, read_directory, rows_at
from agsr.image.metadata.iptc import iptc_of, resources
from agsr.image.metadata.stored import StoredMetadata

_SUBTYPE, _OLD_SUBTYPE, _SUB_DIRECTORIES = 254, 255, 330
_PAGE_TAGS: Final = frozenset({_SUBTYPE, _OLD_SUBTYPE, _SUB_DIRECTORIES, 256, 257})
"""Tags that select the page; width and height identify a page."""
_REDUCED, _MASK, _OLD_REDUCED = 1, 4, 2
_WIDTH, _HEIGHT, _COMPRESSION, _STRIP_OFFSETS, _SAMPLES, _ROWS = 256, 257, 259, 273, 277, 278
_STRIP_LENGTHS, _PLANES, _TILE_WIDTH, _TILE_HEIGHT = 279, 284, 322, 323
_TILE_OFFSETS, _TILE_LENGTHS, _OLD_JPEG_STREAM = 324, 325, 513
_OLD_JPEG, _JPEG, _APART = 6, 7, 2
_JPEG_END = b"\xff\xd9"
_TRANSFER, _WHITE, _PRIMARIES = 301, 318, 319
_XMP, _IPTC, _RESOURCES, _ICC = 700, 33723, 34377, 34675
_MOST_PAGES = 1024
_LAYERS: Final = {37724: "Photoshop layers", 50838: "ImageJ tags", 50839: "ImageJ tags"}
_GEO: Final = (33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113)
_DESCRIPTIVE_PRIVATE: Final = frozenset(
    {*range(40091, 40096), 18246, 18249, 33432, 34665, 34853, 50341}
)
"""Tags from 32768, and those of Windows, that describe the picture."""


@dataclass(frozen=True)
class Tiff:
    """A TIFF file whose header points to the main page."""

    content: bytes
    order: str
    """Byte order as in `struct`."""
    big: bool
    offset: int
    """Offset of the main page's directory."""
    directory: Directory
    pages: int
    """Number of pages that are not reductions or masks of others."""

    def values(self, tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Return the integers of a tag, or the default."""
        entry = self.directory.get(tag)
        found = entry.numbers(self.order) if entry is not None else ()
        return tuple(int(value) for value in found) or default


def open_tiff(content: bytes) -> Tiff | None:
    """Find the main page of a TIFF file; None if it has no directory."""
    order = "<" if content.startswith(b"II") else ">"
    version = struct.unpack_from(order + "H", content, 2)[0] if len(content) >= 16 else 0
    if version not in (42, 43):
        return None
    big = version == 43
    place, code = (8, "Q") if big else (4, "I")
    first = struct.unpack_from(order + code, content, place)[0]
    walk = _Walk(content, order, big, len(content), [len(content)])
    pages = list(walk.chain(first))
    whole = [page for page in pages if not _is_part(page[1], order)]
    if pages and not whole:
        inner = [sub for page in pages for sub in walk.inside(page[1])]
        whole = [page for page in inner if not _is_part(page[1], order)]
    if not pages:
        return None
    offset = (whole or pages)[0][0]
    directory, _, _ = read_directory(content, offset, order, big=big)
    head = content[:place] + struct.pack(order + code, offset)
    moved = head + content[len(head) :] if offset != first else content
    return Tiff(moved, order, big, offset, directory, len(whole) or len(pages))


def check_pieces(tiff: Tiff) -> None:
    """Check that strips or tiles cover the picture; decoders leave missing ones black.

    As in libtiff, byte counts may be missing or zero only if implied by the size: for a single
    uncompressed strip or tile per plane.

    Raises:
        ValueError: Strips or tiles are missing, out of bounds or empty.
    """
    if tiff.values(_COMPRESSION) == (_OLD_JPEG,) and tiff.values(_OLD_JPEG_STREAM):
        return  # a single stream makes strips optional
    tiled = bool(tiff.values(_TILE_OFFSETS))
    offsets = tiff.values(_TILE_OFFSETS if tiled else _STRIP_OFFSETS)
    lengths = tiff.values(_TILE_LENGTHS if tiled else _STRIP_LENGTHS)
    planes = tiff.values(_SAMPLES, (1,))[0] if tiff.values(_PLANES) == (_APART,) else 1
    count = planes * _pieces_of_plane(tiff, tiled)
    if len(offsets) < count:
        raise ValueError(f"{len(offsets)} strips or tiles; expected {count}")
    if not all(0 < offset < len(tiff.content) for offset in offsets[:count]):
        raise ValueError("strips or tiles lie beyond the end of the file")
    compression = tiff.values(_COMPRESSION, (1,))[0]
    implied = count == planes and compression == 1
    if not implied and (len(lengths) < count or not all(lengths[:count])):
        raise ValueError("strips or tiles without content")
    if compression == _JPEG:
        for start, length in zip(offsets[:count], lengths, strict=False):
            if tiff.content.rfind(_JPEG_END, start, start + length) < 0:
                raise ValueError("a strip or tile is cut off")  # libjpeg fills it with grey


def _pieces_of_plane(tiff: Tiff, tiled: bool) -> int:
    width, height = (tiff.values(tag, (0,))[0] for tag in (_WIDTH, _HEIGHT))
    if not tiled:
        return int(-(-height // (tiff.values(_ROWS, (height,))[0] or height)))
    across, down = (tiff.values(tag, (0,))[0] for tag in (_TILE_WIDTH, _TILE_HEIGHT))
    return int(-(-width // across) * -(-height // down))  # ZeroDivisionError for damaged files


def stored_metadata_of_tiff(tiff: Tiff) -> StoredMetadata:
    """Return the metadata in the directory."""
    block = read_exif(tiff.content, tiff.offset, tiff.order, big=tiff.big)
    stored = StoredMetadata(orientation=orientation_of(block) or 1)
    data = {tag: entry.data for tag, entry in block.main.items()}
    stored.icc, stored.xmp, stored.iptc = data.get(_ICC), data.get(_XMP), data.get(_IPTC)
    if _RESOURCES in data:
        stored.iptc = stored.iptc or iptc_of(data[_RESOURCES])
        stored.lost += ["clipping paths"] * any(
            2000 <= n < 2999 for n, _ in resources(data[_RESOURCES])
        )
    if RESOLUTION_UNIT in block.main and numbers(block, block.main, RESOLUTION_UNIT) == (NO_UNIT,):
        density = densities_of(block)
        stored.aspect = density if density and density[0] != density[1] else None
    else:
        stored.dpi = dpi_of(block)
    stored.colour = _colour(block)
    stored.lost += _unknown(block.main)
    described = _describing(block)
    stored.exif = None if described.empty else described.to_bytes()
    return stored


def _describing(block: Exif) -> Exif:
    """Return the tags that describe the picture independently of its storage."""
    main = {
        tag: entry
        for tag, entry in block.main.items()
        if (tag < 1 << 15 or tag in _DESCRIPTIVE_PRIVATE) and tag not in STRUCTURE
    }
    unit = numbers(block, main, RESOLUTION_UNIT)
    if unit and unit[0] == NO_UNIT:
        for tag in (282, 283, RESOLUTION_UNIT):
            main.pop(tag, None)
    # The description that tifffile writes of an array, which was the old one.
    if 270 in main and main[270].data.startswith(b'{"shape"'):
        del main[270]
    lost = tuple(tag for tag in block.lost if tag not in STRUCTURE)
    return replace(block, main=main, lost=lost)


def _unknown(main: Directory) -> list[str]:
    """Name the private tags, which may contain offsets or old pixel sizes."""
    private = [
        tag for tag in main if tag >= 1 << 15 and tag not in _DESCRIPTIVE_PRIVATE | STRUCTURE
    ]
    names = ["GeoTIFF tags" if t in _GEO else _LAYERS.get(t, f"tag {t}") for t in sorted(private)]
    return list(dict.fromkeys(names))


def _colour(block: Exif) -> Colour | None:
    """Return white point, primaries and transfer curves (TIFF 6.0, section 20)."""
    points = [numbers(block, block.main, tag) for tag in (_WHITE, _PRIMARIES)]
    values = tuple(float(value) for value in (*points[0], *points[1]))
    chromaticities = usable_chromaticities(values)
    curves = tuple[bytes, ...]()
    entry = block.main.get(_TRANSFER)
    if entry is not None and entry.kind == 3:
        data = entry.data if block.order == ">" else entry.swapped().data
        parts = 3 if len(data) // 2 in (3 << 8, 3 << 16) else 1
        size = len(data) // parts
        if size in (2 << 8, 2 << 16):
            curves = tuple(data[n * size : (n + 1) * size] for n in range(parts))
    if chromaticities is None and not curves:
        return None
    return Colour(chromaticities=chromaticities, curves=curves)


@dataclass
class _Walk:
    """Reads only the tags that select the main page, at most as many bytes as the file has."""

    content: bytes
    order: str
    big: bool
    rows: int
    """Remaining budget for directory rows, bytes: in valid files, directories don't overlap."""
    values: list[int]
    """Remaining budget for values, bytes."""

    def chain(self, offset: int) -> Iterator[tuple[int, Directory]]:
        """Yield offset and entries of each page."""
        seen = set[int]()
        while offset and offset not in seen and len(seen) < _MOST_PAGES and self.rows > 0:
            seen.add(offset)
            directory, following = self._read(offset)
            if len(seen) > 1 and offset + 2 > len(self.content):
                raise ValueError("a page lies beyond the end of the file")
            if directory:
                yield offset, directory
            offset = following

    def inside(self, directory: Directory) -> Iterator[tuple[int, Directory]]:
        """Yield offset and entries of a page's sub-pages."""
        entry = directory.get(_SUB_DIRECTORIES)
        for offset in (entry.numbers(self.order) if entry is not None else ())[:16]:
            found = self._read(int(offset))[0] if self.rows > 0 else {}
            if found:
                yield int(offset), found

    def _read(self, offset: int) -> tuple[Directory, int]:
        self.rows -= rows_at(self.content, offset, self.order, self.big) * (20 if self.big else 12)
        directory, _, following = read_directory(
            *(self.content, offset, self.order),
            big=self.big,
            budget=self.values,
            only=_PAGE_TAGS,
        )
        return directory, following


def _is_part(directory: Directory, order: str) -> bool:
    """Return True if a page is a reduction or mask of another."""

    def value(tag: int) -> int:
        entry = directory.get(tag)
        return int((entry.numbers(order) or (0,))[0]) if entry is not None else 0

    return bool(value(_SUBTYPE) & (_REDUCED | _MASK)) or value(_OLD_SUBTYPE) == _OLD_REDUCED
