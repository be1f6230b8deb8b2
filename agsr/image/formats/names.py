"""Names of the formats of results, as the command line and the server accept them.

Apart from `agsr.image.formats.writable`, which loads numpy, so that a command line is parsed at
once.
"""

from __future__ import annotations

from typing import Final

from agsr.video.formats import WRITABLE

IMAGE_FORMATS: Final = ("png", "jpg", "webp", "tif", "avif", "bmp", "tga")
VIDEO_FORMATS: Final = tuple(ending[1:] for ending in WRITABLE if ending != ".m4v")

SAME: Final = "same"
"""The input's format, or PNG if that can't be written."""

FORMAT_CHOICES: Final = (*IMAGE_FORMATS, SAME, *VIDEO_FORMATS)
"""All names."""

FORMAT_ALIASES: Final = {
    **{"jpeg": "jpg", "jpe": "jpg", "jfif": "jpg", "tiff": "tif", "targa": "tga", "dib": "bmp"},
    **{"m4v": "mp4", "mpeg4": "mp4", "quicktime": "mov", "matroska": "mkv"},
}
"""Other names, in lower case."""
