"""TIFF files of 8 and 16 bits per channel, deflated, with all metadata, written while rows arrive.

Pillow writes no 16-bit colour, and OpenCV no metadata. The directories are Pillow's; here are the
strips of pixels that they point to (TIFF 6.0, with Adobe's Deflate). What might not fit into the
32-bit offsets of a TIFF file becomes a BigTIFF file.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any, BinaryIO

from numpy.typing import NDArray
from PIL.TiffImagePlugin import ImageFileDirectory_v2 as Directory
from zlib_ng import zlib_ng as zlib

from agsr.deflate import LEVEL, in_shares
from agsr.metadata import Metadata, describing, parse_exif
from agsr.picture import Stripes, samples_of

_HEADER = b"II*\x00\x08\x00\x00\x00"  # little-endian; the directory follows
_BIG_HEADER = b"II+\x00\x08\x00\x00\x00\x10" + bytes(7)
_LARGEST = (1 << 32) - (1 << 26)
"""Bytes of pixels, not deflated, in a file of 32-bit offsets: noise grows a little, and metadata
needs room."""
_STRIP_BYTES = 1 << 20
_OFFSETS, _LENGTHS = 273, 279
_LONG8 = 16
_UNASSOCIATED_ALPHA = 2
_HORIZONTAL_DIFFERENCES = 2
_ADOBE_DEFLATE = 8
_INCH = 2
_UNDEFINED = 7


def write_tiff(stripes: Stripes, stream: BinaryIO) -> None:
    """Write a TIFF file.

    Args:
        stripes: uint8 or uint16; all metadata is written.
        stream: Where to; at its beginning, and able to return there.
    """
    header = _BIG_HEADER if stripes.nbytes > _LARGEST else _HEADER
    rows = max(1, stripes.height * _STRIP_BYTES // stripes.nbytes)
    directory = _described(stripes.metadata, header)
    directory.update(_layout(stripes, rows))
    lengths = [0] * -(-stripes.height // rows)
    stream.write(header + _with_strips(directory, lengths, header))  # as long as the final one
    for number, share in enumerate(in_shares(map(samples_of, stripes.bands), rows)):
        lengths[number] = stream.write(zlib.compress(_differences(share), LEVEL))
    stream.seek(len(header))
    stream.write(_with_strips(directory, lengths, header))


def _with_strips(directory: Directory, lengths: list[int], header: bytes) -> bytes:
    """The bytes of a directory whose strips follow it."""
    if header == _BIG_HEADER:
        directory.tagtype[_OFFSETS] = directory.tagtype[_LENGTHS] = _LONG8
    directory[_LENGTHS] = tuple(lengths)
    directory[_OFFSETS] = tuple(accumulate([0, *lengths[:-1]]))  # from the directory's end
    return directory.tobytes(len(header))


def _differences(samples: NDArray[Any]) -> bytes:
    """Rows as differences from the pixel to the left."""
    band = samples.astype(samples.dtype.newbyteorder("<"))
    band[:, 1:] -= samples[:, :-1]
    return band.tobytes()


def _layout(stripes: Stripes, rows: int) -> dict[int, Any]:
    samples = stripes.samples
    tags: dict[int, Any] = {
        256: stripes.width,
        257: stripes.height,
        258: (stripes.dtype.itemsize * 8,) * samples,
        259: _ADOBE_DEFLATE,
        262: 1 if stripes.channels == 1 else 2,  # black is zero, or RGB
        277: samples,
        278: rows,
        284: 1,  # samples of a pixel lie together
        317: _HORIZONTAL_DIFFERENCES,
    }
    if stripes.opacity:
        tags[338] = _UNASSOCIATED_ALPHA
    return tags


def _described(metadata: Metadata, header: bytes) -> Directory:
    directory = Directory(header)
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
