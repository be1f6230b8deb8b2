"""What a file says about its picture: ICC profile, EXIF, XMP and resolution.

Read from Pillow's view of an opened file, kept as bytes in a `Metadata`, and written by
`agsr.encode`. Orientation is applied to the pixels by `agsr.decode`, so here it becomes 1. The
thumbnail is left out, since it shows the picture as it was.
"""

from __future__ import annotations

import io
import logging
import re
from dataclasses import dataclass, replace
from typing import Any

from PIL import ExifTags, Image, ImageCms

EXIF_HEADER = b"Exif\x00\x00"
"""What Pillow puts before the TIFF structure that EXIF is."""

_LARGEST_DPI = 1e5
_PER_INCH = {2: 1.0, 3: 2.54}
"""What makes dots per inch of a resolution, by EXIF's ResolutionUnit: an inch, a centimetre."""
_ORIENTATION = ExifTags.Base.Orientation
_TURNED = 5
"""From this orientation on, rows and columns are swapped."""
_RESOLUTIONS = (ExifTags.Base.XResolution, ExifTags.Base.YResolution)
_DIMENSIONS = (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:=[\"']|>)\s*)\d+")
_IN_TIFF = (
    *(ExifTags.Base.ImageDescription, ExifTags.Base.Make, ExifTags.Base.Model),
    *(ExifTags.Base.XResolution, ExifTags.Base.YResolution, ExifTags.Base.ResolutionUnit),
    *(ExifTags.Base.Software, ExifTags.Base.DateTime, ExifTags.Base.Artist),
    *(ExifTags.Base.HostComputer, ExifTags.Base.Copyright, ExifTags.Base.Rating),
)
"""The tags of a TIFF file that tell of the picture; the others tell where its pixels lie."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Metadata:
    """What describes a picture and outlives a change of its size."""

    icc: bytes | None = None
    """ICC profile of the pixels: an RGB one for colour, a grey one for grey."""
    exif: bytes | None = None
    """``Exif\\0\\0`` and a TIFF structure with orientation 1 and no thumbnail."""
    xmp: bytes | None = None
    """XMP packet, UTF-8."""
    dpi: tuple[float, float] | None = None
    """Pixels per inch along x and y. Kept as it is: a larger picture prints larger."""

    def stripped(self) -> Metadata:
        """Without what tells of people, places and devices; the profile is part of the colours."""
        return Metadata(icc=self.icc)

    def for_size(self, height: int, width: int) -> Metadata:
        """With the pixel dimensions that EXIF names, if it does, set to those of the picture."""
        if self.exif is None:
            return self
        exif = parse_exif(self.exif)
        details = exif.get_ifd(ExifTags.IFD.Exif)
        for tag, value in zip(_DIMENSIONS, (width, height), strict=True):
            if tag in details:
                details[tag] = value
        return replace(self, exif=exif.tobytes())


def with_dpi(exif: bytes | None, dpi: tuple[float, float] | None) -> bytes | None:
    """EXIF that tells the resolution, for formats that have no other place for it."""
    if dpi is None:
        return exif
    tags = parse_exif(exif or EXIF_HEADER)
    tags[ExifTags.Base.XResolution], tags[ExifTags.Base.YResolution] = dpi
    tags[ExifTags.Base.ResolutionUnit] = 2
    return tags.tobytes()


def parse_exif(data: bytes) -> Image.Exif:
    """The tags in the bytes of `Metadata.exif`."""
    exif = Image.Exif()
    exif.load(data)
    return exif


def read_metadata(image: Image.Image, name: str) -> tuple[Metadata, int]:
    """What an opened file says, and the orientation (1 to 8) its pixels are stored in.

    Damage in what is read here is reported by a warning and costs that part only.

    Args:
        image: An opened file, not loaded yet.
        name: Of the file, for warnings.
    """
    exif, orientation = _read_exif(image, name)
    xmp = image.info.get("xmp")
    if isinstance(xmp, str):
        xmp = xmp.encode()
    if isinstance(xmp, bytes):
        xmp = _XMP_ORIENTATION.sub(rb"\g<1>1", xmp.rstrip(b"\x00"))
    dpi = _read_dpi(image.info.get("dpi")) if _tells_dpi(image) else None
    if dpi is not None and orientation >= _TURNED:
        dpi = dpi[::-1]
    dpi = dpi or _exif_dpi(exif)
    icc = image.info.get("icc_profile") or None
    return Metadata(icc, exif, xmp if isinstance(xmp, bytes) and xmp else None, dpi), orientation


def _tells_dpi(image: Image.Image) -> bool:
    """Whether the resolution is the file's: for a TIFF without one, Pillow makes it 1."""
    return image.format != "TIFF" or _RESOLUTIONS[0] in getattr(image, "tag_v2", ())


def usable_profile(icc: bytes | None, channels: int, name: str) -> bytes | None:
    """The profile, if it is one and describes grey (1) or RGB (3) pixels; else None.

    A profile that can't be used is reported, for without it colours may look different.
    """
    if icc is None:
        return None
    try:
        space = ImageCms.ImageCmsProfile(io.BytesIO(icc)).profile.xcolor_space
    except OSError:
        _log.warning("%s: its ICC profile is damaged, and left out", name)
        return None
    if space.strip() == ("GRAY" if channels == 1 else "RGB"):
        return icc
    _log.warning("%s: its ICC profile is for %s, and left out", name, space.strip())
    return None


def _read_exif(image: Image.Image, name: str) -> tuple[bytes | None, int]:
    try:
        exif = image.getexif()
        orientation = exif.get(_ORIENTATION, 1)
        kept = describing(exif) if image.format == "TIFF" else exif
        if _ORIENTATION in kept:
            kept[_ORIENTATION] = 1
        x, y = _RESOLUTIONS
        if orientation in range(_TURNED, 9) and {x, y} <= set(kept):
            kept[x], kept[y] = kept[y], kept[x]
        data = kept.tobytes() if set(kept) - {_ORIENTATION} else None
        _check_writable(data)
    except Exception:  # damaged EXIF makes Pillow raise nearly anything
        _log.warning("%s: its EXIF data is damaged, and left out", name)
        return None, 1
    known = isinstance(orientation, int) and 1 <= orientation <= 8
    return data, orientation if known else 1


def _check_writable(exif: bytes | None) -> None:
    """Do with EXIF data what is done when files are written; of damaged data it raises anything."""
    if exif is not None:
        Metadata(exif=with_dpi(exif, (1.0, 1.0))).for_size(1, 1)
        describing(parse_exif(exif)).tobytes()


def describing(tags: Image.Exif) -> Image.Exif:
    """Those of the tags that tell of the picture, whatever it is stored in."""
    kept = Image.Exif()
    for tag in _IN_TIFF:
        if tag in tags:
            kept[tag] = tags[tag]
    for folder in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        if folder in tags:
            kept[folder] = dict(tags.get_ifd(folder))
    return kept


def _exif_dpi(exif: bytes | None) -> tuple[float, float] | None:
    tags = parse_exif(exif or EXIF_HEADER)
    factor = _PER_INCH.get(tags.get(ExifTags.Base.ResolutionUnit, 2))
    found = _read_dpi((tags.get(ExifTags.Base.XResolution), tags.get(ExifTags.Base.YResolution)))
    return (found[0] * factor, found[1] * factor) if found and factor else None


def _read_dpi(value: Any) -> tuple[float, float] | None:
    try:
        x, y = (float(number) for number in value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if 0 < x < _LARGEST_DPI and 0 < y < _LARGEST_DPI else None
