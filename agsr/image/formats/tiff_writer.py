"""TIFF files of 8 and 16 bits per channel, deflated, with all metadata, written while rows arrive.

Pillow writes no 16-bit colour, and OpenCV no metadata. The directories are those of
`agsr.image.metadata.exif`; here are the strips of pixels that they point to (TIFF 6.0, with Adobe's
Deflate). What might not fit into the 32-bit offsets of a TIFF file becomes a BigTIFF file.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from typing import Any, BinaryIO

from numpy.typing import NDArray
from zlib_ng import zlib_ng as zlib

from agsr.image.formats.deflate import LEVEL, in_shares
from agsr.image.metadata import Metadata
from agsr.image.metadata.exif import Exif, parse_exif
from agsr.image.metadata.exif_changes import INCH, NO_UNIT, STRUCTURE, with_density
from agsr.image.metadata.ifd import LONG, LONG8, SHORT, UNDEFINED, Directory, Entry, entry_of
from agsr.image.picture import Stripes, samples_of

_HEADER = b"II*\x00\x08\x00\x00\x00"  # little-endian; the directory follows
_BIG_HEADER = b"II+\x00\x08\x00\x00\x00\x10" + bytes(7)
_LARGEST = (1 << 32) - (1 << 26)
"""Bytes of pixels, not deflated, in a file of 32-bit offsets: noise grows a little, and metadata
needs room."""
_STRIP_BYTES = 1 << 20
_OFFSETS, _LENGTHS = 273, 279
_UNASSOCIATED_ALPHA = 2
_HORIZONTAL_DIFFERENCES = 2
_ADOBE_DEFLATE = 8
_XMP, _IPTC, _ICC = 700, 33723, 34675


def write_tiff(stripes: Stripes, stream: BinaryIO) -> None:
    """Write a TIFF file.

    Args:
        stripes: uint8 or uint16; all metadata is written.
        stream: Where to; at its beginning, and able to return there.
    """
    header = _BIG_HEADER if stripes.nbytes > _LARGEST else _HEADER
    rows = max(1, stripes.height * _STRIP_BYTES // stripes.nbytes)
    block = _described(stripes.metadata, _layout(stripes, rows))
    lengths = [0] * -(-stripes.height // rows)
    stream.write(header + _with_strips(block, lengths, header))  # as long as the final one
    for number, share in enumerate(in_shares(map(samples_of, stripes.bands), rows)):
        lengths[number] = stream.write(zlib.compress(_differences(share), LEVEL))
    stream.seek(len(header))
    stream.write(_with_strips(block, lengths, header))


def _with_strips(block: Exif, lengths: list[int], header: bytes) -> bytes:
    """The bytes of a directory whose strips follow it."""
    big = header == _BIG_HEADER
    kind, start, place = LONG8 if big else LONG, len(header), 0
    for _ in range(2):  # the first time, to know how long it is
        offsets = accumulate([place, *lengths[:-1]])
        block.main[_LENGTHS] = entry_of("<", kind, *lengths)
        block.main[_OFFSETS] = entry_of("<", kind, *offsets)
        content = block.directories(start, big=big)
        place = start + len(content)
    return content


def _differences(samples: NDArray[Any]) -> bytes:
    """Rows as differences from the pixel to the left."""
    band = samples.astype(samples.dtype.newbyteorder("<"))
    band[:, 1:] -= samples[:, :-1]
    return band.tobytes()


def _layout(stripes: Stripes, rows: int) -> Directory:
    samples = stripes.samples
    depth = (stripes.dtype.itemsize * 8,) * samples
    tags = {
        256: entry_of("<", LONG, stripes.width),
        257: entry_of("<", LONG, stripes.height),
        258: entry_of("<", SHORT, *depth),
        259: entry_of("<", SHORT, _ADOBE_DEFLATE),
        262: entry_of("<", SHORT, 1 if stripes.channels == 1 else 2),  # black is zero, or RGB
        277: entry_of("<", SHORT, samples),
        278: entry_of("<", LONG, rows),
        284: entry_of("<", SHORT, 1),  # samples of a pixel lie together
        317: entry_of("<", SHORT, _HORIZONTAL_DIFFERENCES),
    }
    if stripes.opacity:
        tags[338] = entry_of("<", SHORT, _UNASSOCIATED_ALPHA)
    return tags


def _described(metadata: Metadata, layout: Directory) -> Exif:
    block = parse_exif(metadata.exif or b"").little_endian()
    density, unit = metadata.dpi or metadata.aspect, INCH if metadata.dpi else NO_UNIT
    if density is not None:
        block = with_density(block, density, unit)
    main = {tag: entry for tag, entry in block.main.items() if tag not in STRUCTURE}
    blocks = ((_XMP, metadata.xmp), (_IPTC, metadata.iptc), (_ICC, metadata.icc))
    main |= {tag: Entry(UNDEFINED, data) for tag, data in blocks if data}
    return replace(block, main=main | layout)
