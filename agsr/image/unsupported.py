"""Detect unsupported image formats, and suggest conversions."""

from __future__ import annotations

from pathlib import PurePath
from typing import Final

from agsr.video.formats import UNSUPPORTED, video_ending

_RAW: Final = frozenset(
    {".3fr", ".arw", ".cr2", ".cr3", ".dng", ".erf", ".iiq", ".nef", ".nrw", ".orf", ".pef", ".raf"}
    | {".raw", ".rw2", ".rwl", ".srw", ".x3f"}
)
"""Endings of camera raw files. Many are TIFF containers with a small preview."""

_PNM: Final = "magick in.pnm out.png"

_BY_CONTENT: Final = (
    (b"%PDF", "a PDF", "pdftoppm -r 300 -png converts its pages to images"),
    (b"8BPS", "a Photoshop file", "export it as PNG or TIFF, or: magick 'in.psd[0]' out.png"),
    (b"\xff\x0a", "JPEG XL", "djxl in.jxl out.png"),
    (b"\0\0\0\x0cJXL ", "JPEG XL", "djxl in.jxl out.png"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000", "magick in.jp2 out.png"),
    (b"\xff\x4f\xff\x51", "JPEG 2000", "magick in.j2k out.png"),
    (b"v/1\x01", "OpenEXR, a floating-point HDR format", "tone-map it to 16-bit PNG or TIFF"),
    (b"#?RADIANCE", "Radiance HDR, a floating-point format", "tone-map it to 16-bit PNG or TIFF"),
    (b"\0\0\x01\0", "an icon", "magick 'in.ico[0]' out.png"),
    *((b"P%d" % n, "a portable map (PBM, PGM, PPM)", _PNM) for n in range(1, 7)),
    (b"P7\n", "a portable map (PAM)", "magick in.pam out.png"),
    (b"PF\n", "a portable float map", "tone-map it to 16-bit PNG or TIFF"),
    (b"Pf\n", "a portable float map", "tone-map it to 16-bit PNG or TIFF"),
    (b"qoif", "QOI", "magick in.qoi out.png"),
    (b"\x01\xda", "an SGI picture", "magick in.sgi out.png"),
    *((b"\x0a%c\x01" % version, "PCX", "magick in.pcx out.png") for version in (0, 2, 3, 4, 5)),
    (b"/* XPM */", "an X pixmap (XPM)", "magick in.xpm out.png"),
    (b"\x59\xa6\x6a\x95", "a Sun raster picture", "magick in.ras out.png"),
    (b"icns", "icons of macOS", "magick 'in.icns[0]' out.png"),
    (b"SIMPLE  =", "FITS, an astronomy format", "scale it to 16-bit PNG or TIFF"),
    (b"BPG\xfb", "BPG", "bpgdec -o out.png in.bpg"),
    (b"gimp xcf", "a GIMP file", "export it as PNG or TIFF"),
)

_VIDEO: Final = "a video; name the file: agsr infer in.mp4 (a stream: Y4M)"

ENDINGS: Final = _RAW | {
    *(".psd", ".psb", ".jxl", ".jp2", ".j2k", ".exr", ".hdr", ".ico"),
    *(".pbm", ".pgm", ".ppm", ".pnm", ".pam", ".pfm", ".qoi", ".svg", ".pcx", ".sgi", ".rgb"),
    *(".xpm", ".ras", ".icns", ".fits", ".bpg", ".xcf"),
}
"""Endings of unsupported images, which are reported when found in a folder."""


def is_raw(name: str) -> bool:
    """Return True if the name is that of a camera raw file.

    >>> is_raw("DSC01.ARW")
    True
    """
    return PurePath(name).suffix.lower() in _RAW


def describe_unsupported(content: bytes, name: str) -> str | None:
    """Describe an unsupported file and how to convert it; None if unknown.

    >>> describe_unsupported(b"%PDF-1.7", "a.pdf")
    'a PDF; pdftoppm -r 300 -png converts its pages to images'
    """
    if is_raw(name):
        return "a camera's raw file; develop it to TIFF or PNG first, in darktable for instance"
    if PurePath(name).suffix.lower() in UNSUPPORTED:
        return "a video in an unsupported container; ffmpeg -i in -map 0 -c copy out.mkv"
    for start, kind, advice in _BY_CONTENT:
        if content.startswith(start):
            return f"{kind}; {advice}"
    if video_ending(content) is not None:
        return _VIDEO
    if b"<svg" in content[:2000]:
        return "an SVG drawing, which has no pixels; draw it larger: rsvg-convert -z 4"
    return None
