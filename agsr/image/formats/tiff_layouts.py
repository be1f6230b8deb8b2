"""Read 16-bit TIFF layouts that Pillow and OpenCV don't support: planar, or grey with alpha.

Pillow reads 16-bit grey in every compression. So it is given the file with the directory of a grey
picture: one plane at a time, or a picture as wide as all samples of a row.
"""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import UnidentifiedImageError
from PIL.TiffImagePlugin import ImageFileDirectory_v2 as Directory
from PIL.TiffImagePlugin import TiffImageFile

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262  # TIFF 6.0 tags
_FILL_ORDER, _OFFSETS, _SAMPLES, _ROWS, _LENGTHS = 266, 273, 277, 278, 279
_PLANES, _PREDICTOR, _EXTRA_SAMPLES = 284, 317, 338
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_LENGTHS = 322, 323, 324, 325
_LAYOUT_TAGS = (
    *(_WIDTH, _HEIGHT, _COMPRESSION, _FILL_ORDER, _OFFSETS, _ROWS, _LENGTHS, _PREDICTOR),
    *(_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_LENGTHS),
)
_GREY = {_BITS: (16,), _PHOTOMETRIC: 1, _SAMPLES: 1, _PLANES: 1}
_APART = 2
_UNSPECIFIED, _UNASSOCIATED = 0, 2
_DIFFERENCES = 2
_WITH_DIFFERENCES = (5, 8, 32946, 34925, 50000)
"""Compressions with predictors: LZW, Deflate (two codes), LZMA, Zstandard."""
_LONG, _LONG8 = 4, 16
_MOST_SAMPLES = 6
"""As in Pillow: limits the memory that a header can request."""


class _ForItsTags(TiffImageFile):
    """16-bit grey with extra samples, which Pillow can't open. Only its tags are usable."""

    def _setup(self) -> None:
        tags, grey = self.tag_v2, _GREY.keys() - {_PLANES} | {_EXTRA_SAMPLES}
        samples, found = tags.get(_SAMPLES, 1), {tag: tags[tag] for tag in grey if tag in tags}
        deep = set(tags.get(_BITS, ())) == {16} and 2 <= samples <= _MOST_SAMPLES
        if not deep or tags.get(_PHOTOMETRIC) not in (0, 1):
            raise SyntaxError("unknown pixel mode")  # as Pillow does
        for tag in found:
            del tags[tag]
        tags.update({tag: _GREY[tag] for tag in grey & _GREY.keys()})
        super()._setup()
        tags.update(found)


class _WithAlpha(TiffImageFile):
    """Treats an unspecified extra channel, which Pillow skips, as alpha."""

    def _setup(self) -> None:
        if self.tag_v2.get(_EXTRA_SAMPLES) == (_UNSPECIFIED,):
            self.tag_v2[_EXTRA_SAMPLES] = (_UNASSOCIATED,)
        super()._setup()


def with_unknown_as_alpha(content: bytes) -> TiffImageFile:
    """Open an 8-bit TIFF file, including the channel that Pillow skips."""
    return _WithAlpha(io.BytesIO(content))


def open_for_tags(content: bytes) -> TiffImageFile:
    """Open a TIFF file that Pillow's own class rejects, for `read_samples`.

    Raises:
        UnidentifiedImageError: Not 16-bit grey with extra samples.
    """
    try:
        return _ForItsTags(io.BytesIO(content))
    except SyntaxError:
        raise UnidentifiedImageError from None


def read_samples(content: bytes, tags: Directory) -> NDArray[np.uint16]:
    """Read all samples as stored, ``(H, W, samples)``, without applying the orientation.

    Args:
        content: The whole file, 16 bits per sample.
        tags: Its directory.

    Raises:
        ValueError, OSError: Damaged or truncated.
    """
    samples, layout = tags.get(_SAMPLES, 1), {tag: tags[tag] for tag in _LAYOUT_TAGS if tag in tags}
    if tags.get(_PLANES, 1) == _APART:
        planes = [_read(content, layout | _plane(layout, n, samples)) for n in range(samples)]
        return np.stack(planes, axis=2)
    wide = {_PREDICTOR: 1} | {
        tag: layout[tag] * samples for tag in (_WIDTH, _TILE_WIDTH) if tag in layout
    }
    rows = _read(content, layout | wide)
    found = rows.reshape(rows.shape[0], -1, samples)
    if layout.get(_PREDICTOR) == _DIFFERENCES and layout.get(_COMPRESSION) in _WITH_DIFFERENCES:
        _add_up(found, layout.get(_TILE_WIDTH, found.shape[1]))
    return found


def _plane(layout: dict[int, Any], number: int, samples: int) -> dict[int, Any]:
    """Return the strips or tiles of one plane; planes follow one another."""
    places = {}
    for tag in (_OFFSETS, _LENGTHS, _TILE_OFFSETS, _TILE_LENGTHS):
        if tag in layout:
            share = len(layout[tag]) // samples
            places[tag] = layout[tag][number * share : (number + 1) * share]
    return places


def _read(content: bytes, layout: dict[int, Any]) -> NDArray[np.uint16]:
    """Read a grey picture ``(H, W)`` with this layout."""
    offsets = layout.get(_TILE_OFFSETS, layout.get(_OFFSETS, ()))
    if len(offsets) != _pieces(layout):
        raise ValueError(f"{len(offsets)} strips or tiles; expected {_pieces(layout)}")
    with TiffImageFile(io.BytesIO(_behind_directory(content, layout | _GREY))) as image:
        return np.asarray(image).astype(np.uint16)


def _pieces(layout: dict[int, Any]) -> int:
    """Return the number of strips or tiles."""
    height = layout.get(_TILE_HEIGHT) or layout.get(_ROWS) or layout[_HEIGHT]
    width = layout.get(_TILE_WIDTH) or layout[_WIDTH]
    return int(-(-layout[_HEIGHT] // height) * -(-layout[_WIDTH] // width))


def _behind_directory(content: bytes, layout: dict[int, Any]) -> bytes:
    """Return a TIFF file: a header and directory, followed by the whole file it points into."""
    big = content.startswith(b"II+")
    if big:
        header = content[:8] + struct.pack("<Q", 16)
    else:
        header = content[:4] + struct.pack("<L" if content.startswith(b"II") else ">L", 8)
    directory = Directory(header)
    for tag, value in layout.items():
        if tag in (_OFFSETS, _TILE_OFFSETS):
            directory.tagtype[tag] = _LONG8 if big else _LONG
        directory[tag] = value
    if _TILE_OFFSETS in layout:  # Pillow moves strips, but not tiles
        start = len(header) + len(directory.tobytes(len(header)))
        directory[_TILE_OFFSETS] = tuple(start + offset for offset in layout[_TILE_OFFSETS])
    return header + directory.tobytes(len(header)) + content


def _add_up(samples: NDArray[np.uint16], tile: int) -> None:
    """Undo horizontal differencing, which restarts in every tile."""
    for left in range(0, samples.shape[1], tile):
        part = samples[:, left : left + tile]
        np.cumsum(part, axis=1, dtype=np.uint16, out=part)
