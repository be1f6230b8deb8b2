"""TIFF files of 8 and 16 bits per channel, deflated, with all metadata.

Pillow writes no 16-bit colour, and OpenCV no metadata. The directories are Pillow's; here are the
strips of pixels that they point to (TIFF 6.0, with Adobe's Deflate).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.TiffImagePlugin import ImageFileDirectory_v2 as Directory

from agsr.deflate import LEVEL
from agsr.errors import ImageError
from agsr.metadata import Metadata, describing, parse_exif

Samples = NDArray[np.uint8] | NDArray[np.uint16]

_HEADER = b"II*\x00\x08\x00\x00\x00"  # little-endian; the directory follows
_LARGEST = (1 << 32) - (1 << 25)  # bytes of pixels: offsets have 32 bits, and metadata needs room
_STRIP_BYTES = 1 << 20
_UNASSOCIATED_ALPHA = 2
_HORIZONTAL_DIFFERENCES = 2
_ADOBE_DEFLATE = 8
_INCH = 2
_UNDEFINED = 7


def encode_tiff(samples: Samples, metadata: Metadata) -> bytes:
    """A TIFF file.

    Args:
        samples: ``(H, W, C)`` uint8 or uint16; C is 1 (grey), 2 (grey, alpha), 3 (RGB), 4 (RGBA).
        metadata: All of it is written.

    Raises:
        ImageError: The file would be larger than 4 GiB.
    """
    rows = max(1, _STRIP_BYTES // (samples.itemsize * samples.shape[1] * samples.shape[2]))
    strips = [zlib.compress(strip, LEVEL) for strip in _strips(samples, rows)]
    directory = _described(metadata)
    directory.update(_layout(samples, rows))
    lengths = [len(strip) for strip in strips]
    directory[279] = tuple(lengths)
    directory[273] = tuple(accumulate([0, *lengths[:-1]]))  # from the directory's end, for Pillow
    if sum(lengths) > _LARGEST:
        raise ImageError("the result is larger than a TIFF file can be, 4 GiB; use PNG")
    return b"".join((_HEADER, directory.tobytes(len(_HEADER)), *strips))


def _strips(samples: Samples, rows: int) -> Iterator[bytes]:
    """Bands of rows as differences from the pixel to the left."""
    for top in range(0, samples.shape[0], rows):
        band = samples[top : top + rows].astype(samples.dtype.newbyteorder("<"))
        band[:, 1:] -= band[:, :-1].copy()
        yield band.tobytes()


def _layout(samples: Samples, rows: int) -> dict[int, Any]:
    height, width, channels = samples.shape
    tags: dict[int, Any] = {
        256: width,
        257: height,
        258: (samples.itemsize * 8,) * channels,
        259: _ADOBE_DEFLATE,
        262: 1 if channels < 3 else 2,  # black is zero, or RGB
        277: channels,
        278: rows,
        284: 1,  # samples of a pixel lie together
        317: _HORIZONTAL_DIFFERENCES,
    }
    if channels in (2, 4):
        tags[338] = _UNASSOCIATED_ALPHA
    return tags


def _described(metadata: Metadata) -> Directory:
    directory = Directory(_HEADER)
    if metadata.exif:
        exif = describing(parse_exif(metadata.exif))
        for tag, value in exif.items():
            directory[tag] = value
    if metadata.dpi:
        directory[282], directory[283] = metadata.dpi
        directory[296] = _INCH
    for tag, data in ((700, metadata.xmp), (34675, metadata.icc)):
        if data:
            directory.tagtype[tag] = _UNDEFINED
            directory[tag] = data
    return directory
