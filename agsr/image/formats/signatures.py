"""Recognise the formats that Pillow does not open for us, by their first or last bytes.

Their readers are imported when such a file is read: most files are PNG or JPEG.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Final

DDS: Final = "DDS"
TGA: Final = "TGA"
"""Pillow's names."""

TGA_ENDING: Final = ".tga"
HEIF_ENDINGS: Final = frozenset({".heic", ".heif", ".hif"})
"""File name endings."""

_TIFF_STARTS: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of TIFF and BigTIFF in both byte orders."""

_DDS_START: Final = b"DDS "
_TGA_END: Final = b"TRUEVISION-XFILE.\0"
_HEIC_BRANDS: Final = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")
_BRANDS_OF_ANY_CODEC: Final = (b"mif1", b"msf1")


def is_dds(content: bytes) -> bool:
    """Return True if a file is DDS.

    >>> is_dds(b"DDS |")
    True
    """
    return content.startswith(_DDS_START)


def is_heif(content: bytes) -> bool:
    """Return True if the content starts like HEIC; AVIF doesn't count.

    >>> is_heif(b"\\0\\0\\0\\x18ftypheic"), is_heif(b"\\0\\0\\0\\x18ftypavif")
    (True, False)
    """
    if content[4:8] != b"ftyp":
        return False
    length, brand = int.from_bytes(content[:4], "big"), content[8:12]
    if brand in _BRANDS_OF_ANY_CODEC:
        others = content[16 : min(length, 256)]
        return any(known in others for known in _HEIC_BRANDS)
    return brand in _HEIC_BRANDS


def is_tga(name: str, content: bytes = b"") -> bool:
    """Return True if a file is TGA, by its name or its version 2 footer.

    >>> is_tga("a.tga"), is_tga("a.png")
    (True, False)
    """
    return PurePath(name).suffix.lower() == TGA_ENDING or content.endswith(_TGA_END)


def is_tiff(content: bytes) -> bool:
    """Return True if a file is TIFF or BigTIFF.

    >>> is_tiff(b"II*\\0")
    True
    """
    return content.startswith(_TIFF_STARTS)
