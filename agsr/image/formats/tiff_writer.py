"""Write TIFF files of 8 and 16 bits per channel, deflated, with all metadata, while rows arrive.

Pillow can't write 16-bit colour, OpenCV can't write metadata. `agsr.image.metadata.exif` writes the
directories; this module writes the strips of pixels (TIFF 6.0, with Adobe's Deflate). Files that
might exceed 32-bit offsets become BigTIFF.
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
from agsr.image.picture import RowBands, samples_of

_HEADER = b"II*\x00\x08\x00\x00\x00"  # little-endian; the directory follows
_BIG_HEADER = b"II+\x00\x08\x00\x00\x00\x10" + bytes(7)
_LARGEST = (1 << 32) - (1 << 26)
"""Maximum bytes of uncompressed pixels with 32-bit offsets. Noise grows slightly when deflated, and
metadata needs space."""
_STRIP_BYTES = 1 << 20
_OFFSETS, _LENGTHS = 273, 279
_UNASSOCIATED_ALPHA = 2
_HORIZONTAL_DIFFERENCES = 2
_ADOBE_DEFLATE = 8
_XMP, _IPTC, _ICC = 700, 33723, 34675


def write_tiff(row_bands: RowBands, stream: BinaryIO) -> None:
    """Write a TIFF file.

    Args:
        row_bands: uint8 or uint16; all metadata is written.
        stream: Seekable, at its beginning.
    """
    header = _BIG_HEADER if row_bands.nbytes > _LARGEST else _HEADER
    rows = max(1, row_bands.height * _STRIP_BYTES // row_bands.nbytes)
    block = _described(row_bands.metadata, _layout(row_bands, rows))
    lengths = [0] * -(-row_bands.height // rows)
    # A directory of the final one's length, which replaces it at the end.
    stream.write(header + _with_strips(block, lengths, header))
    for number, share in enumerate(in_shares(map(samples_of, row_bands.bands), rows)):
        lengths[number] = stream.write(zlib.compress(_differences(share), LEVEL))
    stream.seek(len(header))
    stream.write(_with_strips(block, lengths, header))


def _with_strips(block: Exif, lengths: list[int], header: bytes) -> bytes:
    """Return a directory whose strips follow it."""
    big = header == _BIG_HEADER
    kind, start, place = LONG8 if big else LONG, len(header), 0
    for _ in range(2):  # first pass determines the length
        offsets = accumulate([place, *lengths[:-1]])
        block.main[_LENGTHS] = entry_of("<", kind, *lengths)
        block.main[_OFFSETS] = entry_of("<", kind, *offsets)
        content = block.directories(start, big=big)
        place = start + len(content)
    return content


def _differences(samples: NDArray[Any]) -> bytes:
    """Apply horizontal differencing."""
    band = samples.astype(samples.dtype.newbyteorder("<"))
    band[:, 1:] -= samples[:, :-1]
    return band.tobytes()


def _layout(row_bands: RowBands, rows: int) -> Directory:
    samples = row_bands.samples
    depth = (row_bands.dtype.itemsize * 8,) * samples
    tags = {
        256: entry_of("<", LONG, row_bands.width),
        257: entry_of("<", LONG, row_bands.height),
        258: entry_of("<", SHORT, *depth),
        259: entry_of("<", SHORT, _ADOBE_DEFLATE),
        262: entry_of("<", SHORT, 1 if row_bands.channels == 1 else 2),  # black is zero, or RGB
        277: entry_of("<", SHORT, samples),
        278: entry_of("<", LONG, rows),
        284: entry_of("<", SHORT, 1),  # interleaved samples
        317: entry_of("<", SHORT, _HORIZONTAL_DIFFERENCES),
    }
    if row_bands.opacity:
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
