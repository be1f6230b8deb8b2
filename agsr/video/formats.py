"""Which video files are read and written, by the endings of their names."""

from __future__ import annotations

from typing import Final

READABLE: Final = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".y4m", ".3gp", ".3g2", ".f4v", ".flv"}
    | {".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".vob", ".wmv", ".asf", ".ogv", ".ogm", ".divx"}
)
"""File name endings of videos."""

IN_FOLDERS: Final = READABLE - {".ts"}
"""Those that are looked for in folders, where ``.ts`` is mostly a program's source."""

UNREAD: Final = frozenset({".mxf", ".gxf", ".rm", ".rmvb", ".dv", ".nut", ".wtv", ".m2v", ".ivf"})
"""File name endings of videos in other containers."""

WRITABLE: Final = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
}
"""Endings of results, with FFmpeg's names of the formats."""

RAW: Final = ".y4m"
"""Ending that stands for frames to stdout: each uncompressed, with a header (YUV4MPEG2)."""

Y4M_MAGIC: Final = b"YUV4MPEG2 "
"""The first bytes of such a stream."""

SEGMENTS_ENDING: Final = ".agsr-segments"
"""Put behind a result's name: the folder of its finished parts."""

CODECS: Final = ("h264", "hevc", "av1", "vp9", "prores", "ffv1")
"""What a result can be encoded as."""


def is_video(suffix: str) -> bool:
    """Whether a file name ending is that of a video."""
    return suffix.lower() in READABLE


def result_ending(source_suffix: str) -> str:
    """The ending of a result where none is asked for: the source's, or the one that holds most."""
    suffix = source_suffix.lower()
    return suffix if suffix in WRITABLE else ".mkv"
