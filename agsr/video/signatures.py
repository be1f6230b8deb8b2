"""Recognise videos by their first bytes: uploads without a name, videos that are taken for images.

`agsr.video.formats` has the endings that files with a name go by.
"""

from __future__ import annotations

from typing import Final

from agsr.video.formats import Y4M_MAGIC

HEAD: Final = 512
"""Bytes that suffice."""

_STILL_BRANDS: Final = (b"avi", b"crx ", b"hei", b"hev", b"jp", b"mif", b"msf")
"""Prefixes of the brands of ISO-BMFF files that hold still pictures."""

_BY_START: Final = {
    b"\0\0\1\xba": ".mpg",
    b"FLV\1": ".flv",
    b"OggS": ".ogv",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": ".asf",
    Y4M_MAGIC: ".y4m",
}
_MATROSKA: Final = b"\x1a\x45\xdf\xa3"


def video_ending(head: bytes) -> str | None:
    """Return the file name ending for a video that starts like this; None for anything else.

    >>> video_ending(b"\\0\\0\\0\\x18ftypisom"), video_ending(b"\\0\\0\\0\\x18ftypavif")
    ('.mp4', None)

    Args:
        head: The first `HEAD` bytes or more.
    """
    if head[4:8] == b"ftyp":
        if head[8:12].startswith(_STILL_BRANDS):
            return None
        return ".mov" if head[8:12] == b"qt  " else ".mp4"
    if head.startswith(_MATROSKA):
        return ".webm" if b"webm" in head[:64] else ".mkv"
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return ".avi"
    if head[:1] == b"G" == head[188:189]:
        return ".ts"
    if head[4:5] == b"G" == head[196:197]:  # with timestamps of four bytes
        return ".m2ts"
    return next((ending for start, ending in _BY_START.items() if head.startswith(start)), None)
