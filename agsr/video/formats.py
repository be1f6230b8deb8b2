"""Video formats that are read and written, by file name ending."""

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
