"""Video formats that are read and written: by file name ending, or by a file's first bytes."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

READABLE: Final = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".y4m", ".3gp", ".3g2", ".f4v", ".flv"}
    | {".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".vob", ".wmv", ".asf", ".ogv", ".ogm", ".divx"}
)
"""File name endings of videos."""

IN_FOLDERS: Final = READABLE - {".ts"}
"""Endings that are read from folders, where ``.ts`` is usually TypeScript."""

UNSUPPORTED: Final = frozenset(
    {".mxf", ".gxf", ".rm", ".rmvb", ".dv", ".nut", ".wtv", ".m2v", ".ivf"}
)
"""File name endings of videos in unsupported containers."""

WRITABLE: Final = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
}
"""Endings of results, and FFmpeg's names of their formats."""

RAW: Final = ".y4m"
"""Ending that selects uncompressed frames to stdout (YUV4MPEG2)."""

Y4M_MAGIC: Final = b"YUV4MPEG2 "
"""The first bytes of a YUV4MPEG2 stream."""

SEGMENTS_ENDING: Final = ".agsr-segments"
"""Suffix of the folder for a result's finished segments."""

CODECS: Final = ("h264", "hevc", "av1", "vp9", "prores", "ffv1")
"""Codecs for results."""


def is_video(suffix: str) -> bool:
    """Return True if a file name ending is that of a video.

    >>> is_video(".MP4")
    True
    """
    return suffix.lower() in READABLE


def result_ending(source_suffix: str) -> str:
    """Return the default ending of a result: the source's if writable, else the most capable.

    >>> result_ending(".mp4"), result_ending(".avi")
    ('.mp4', '.mkv')
    """
    suffix = source_suffix.lower()
    return suffix if suffix in WRITABLE else ".mkv"


def can_read_videos() -> bool:
    """Return True if PyAV is installed, so that videos in folders are inputs, too."""
    return find_spec("av") is not None


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
_SYNC: Final = b"G"
"""First byte of each packet of an MPEG transport stream."""
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
    if not head.startswith((b"GIF8", b"BM")):
        if all(head[at : at + 1] == _SYNC for at in (0, 188, 376)):
            return ".ts"
        if all(head[at : at + 1] == _SYNC for at in (4, 196, 388)):  # with four bytes of time
            return ".m2ts"
    return next((ending for start, ending in _BY_START.items() if head.startswith(start)), None)
