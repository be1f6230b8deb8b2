"""Image formats that are written: what each can hold, and by which endings it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agsr.image.picture import Stripes


@dataclass(frozen=True, kw_only=True)
class Format:
    """What a file format can hold, and how it is asked for."""

    name: str
    """Pillow's."""
    deep: bool = False
    """Holds 16 bits per channel."""
    alpha: bool = True
    grey: bool = True
    profile: bool = True
    """Holds an ICC profile, EXIF and XMP."""
    codes: bool = False
    """Names colours by code points, as `agsr.image.metadata.colour` does."""
    iptc: bool = False
    """Holds IPTC records, and pixels that are not square."""
    text: bool = False
    """Holds texts of any keyword; others hold those that EXIF has a tag for."""
    comment: bool = False
    """Holds one comment."""
    lossy: bool = False
    """Changes pixels whatever the quality."""
    quality: int | None = None
    """What Pillow is given where none is asked for; None for a format without such a thing."""
    segment: int | None = None
    """Most bytes of EXIF or of XMP."""
    dpi: bool = True
    """Has a place for the resolution; else EXIF tells it, where there is a place for that."""
    largest_dpi: int | None = None
    """Most pixels per inch."""
    largest_side: int | None = None
    """Most pixels of a row or of a column."""
    memory: int | None = None
    """Bytes that Pillow takes per pixel, measured; None where bands are written one by one."""
    usual_share: float
    """Size of a photograph's file, as a share of its pixels' bytes."""
    least_share: float = 0.0
    """The same of the smallest file that there can be."""

    def stored_bytes(self, stripes: Stripes) -> int:
        """Bytes of what the format holds of a picture, not compressed."""
        channels = stripes.channels if self.grey else 3
        samples = channels + (stripes.opacity and self.alpha)
        depth = stripes.dtype.itemsize if self.deep else 1
        return stripes.height * stripes.width * samples * depth


_WEBP_EFFORT = 50
"""Of lossless WebP, which Pillow calls quality: on photos as small as 100, in a quarter."""

_DEFLATED: Final = 1 / 1032
"""The least that deflate makes of bytes."""

_PNG = Format(
    name="PNG",
    deep=True,
    codes=True,
    iptc=True,
    text=True,
    usual_share=0.5,
    least_share=_DEFLATED,
)
_TIFF = Format(name="TIFF", deep=True, iptc=True, usual_share=0.6, least_share=_DEFLATED)
_JPEG = Format(
    name="JPEG",
    alpha=False,
    iptc=True,
    comment=True,
    lossy=True,
    quality=95,
    segment=65_000,
    largest_dpi=65_535,
    largest_side=65_500,
    memory=5,
    usual_share=0.2,
)
_WEBP = Format(
    name="WEBP",
    grey=False,
    quality=_WEBP_EFFORT,
    dpi=False,
    largest_side=16_383,
    memory=40,
    usual_share=0.5,
)
_AVIF = Format(
    name="AVIF",
    grey=False,
    codes=True,
    lossy=True,
    quality=90,
    dpi=False,
    memory=40,
    usual_share=0.1,
)
_BMP = Format(name="BMP", alpha=False, profile=False, memory=5, usual_share=1, least_share=1)
_TGA = Format(
    name="TGA",
    profile=False,
    dpi=False,
    largest_side=65_535,
    memory=5,
    usual_share=1,
    least_share=1,
)
FORMATS: Final = {
    ".png": _PNG,
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".jpe": _JPEG,
    ".jfif": _JPEG,
    ".webp": _WEBP,
    ".avif": _AVIF,
    ".bmp": _BMP,
    ".tga": _TGA,
}
"""By the ending of a file's name."""
