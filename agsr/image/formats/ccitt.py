"""Find fax-compressed strips and tiles of TIFF files that are cut off, by markers in their bits.

libtiff makes the missing rows white and reports them to nobody. T.4 (compression 3) begins every
row with an end-of-line code; T.6 (compression 4) ends every strip or tile with two of them. Neither
occurs within other codes. Compression 2 has no markers: only bytes that are not codes are found.
Rows are not decoded, so damage elsewhere in a strip stays unnoticed.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from typing import Final

from agsr.image.formats.tiff_pages import Tiff

_HEIGHT, _COMPRESSION, _FILL_ORDER, _OFFSETS, _ROWS, _LENGTHS = 257, 259, 266, 273, 278, 279
_TILE_HEIGHT, _TILE_OFFSETS, _TILE_LENGTHS = 323, 324, 325
_MODIFIED_HUFFMAN, _T4, _T6 = 2, 3, 4
_END_OF_LINE: Final = "0" * 11 + "1"
_END_OF_BLOCK: Final = 2 * _END_OF_LINE
_NO_CODE = bytes(4)
"""Zeros that no code and no padding has."""
_REVERSED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def count_cut_pieces(tiff: Tiff) -> tuple[int, int]:
    """Return the number of fax-compressed strips or tiles without their end, and of all."""
    compression = tiff.values(_COMPRESSION, (1,))[0]
    if compression not in (_MODIFIED_HUFFMAN, _T4, _T6):
        return 0, 0
    cut, pieces = 0, list(_pieces(tiff))
    for start, length, rows in pieces:
        data = tiff.content[start : start + length]
        if tiff.values(_FILL_ORDER) == (2,):
            data = data.translate(_REVERSED)
        cut += not _has_end(data, compression, rows)
    return cut, len(pieces)


def _pieces(tiff: Tiff) -> Iterator[tuple[int, int, int]]:
    """Yield offset, length and number of rows of each strip or tile."""
    height = tiff.values(_HEIGHT)[0]
    if tiles := tiff.values(_TILE_OFFSETS):
        (rows,) = tiff.values(_TILE_HEIGHT)
        yield from zip(tiles, tiff.values(_TILE_LENGTHS), repeat(rows), strict=False)
        return
    rows = min(tiff.values(_ROWS, (height,))[0] or height, height)
    strips = zip(tiff.values(_OFFSETS), tiff.values(_LENGTHS), range(0, height, rows), strict=False)
    for start, length, top in strips:
        yield start, length, min(rows, height - top)


def _has_end(data: bytes, compression: int, rows: int) -> bool:
    if not any(data):
        return False
    if compression == _MODIFIED_HUFFMAN:
        return not data.endswith(_NO_CODE)
    bits = f"{int.from_bytes(data, 'big'):0{8 * len(data)}b}"
    if compression == _T6:
        return _END_OF_BLOCK in bits
    lines = bits.count(_END_OF_LINE)
    return lines == 0 or lines >= rows - 1  # some writers omit all of them, or the first
