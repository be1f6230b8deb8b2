"""Writable image formats: their capabilities and file name endings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agsr.image.picture import RowBands


@dataclass(frozen=True, kw_only=True)
class Format:
    """Capabilities of a file format."""

    name: str
    """Pillow's name."""
    deep: bool = False
    """Stores 16 bits per channel."""
    alpha: bool = True
    grey: bool = True
    profile: bool = True
    """Stores ICC profile, EXIF and XMP."""
    codes: bool = False
    """Stores colour code points; see `agsr.image.metadata.colour`."""
    iptc: bool = False
    """Stores IPTC records and pixel aspect ratios."""
    text: bool = False
    """Stores texts with any keyword; other formats only those with an EXIF tag."""
    comment: bool = False
    """Stores one comment."""
    lossy: bool = False
    """Always lossy, at any quality."""
    quality: int | None = None
    """Default quality for Pillow; None for a format without a quality setting."""
    segment: int | None = None
    """Maximum bytes of EXIF or XMP."""
    dpi: bool = True
    """Stores the resolution itself; otherwise it goes to EXIF if supported."""
    largest_dpi: int | None = None
    """Maximum pixels per inch."""
    largest_side: int | None = None
    """Maximum width and height, pixels."""
    memory: int | None = None
    """Measured memory of Pillow, bytes per pixel; None if bands are written one by one."""
    usual_share: float
    """Typical file size of a photograph, as a fraction of the pixel bytes."""
    least_share: float = 0.0
    """Smallest possible file size, as a fraction of the pixel bytes."""

    def stored_bytes(self, row_bands: RowBands) -> int:
        """Return the uncompressed bytes of a picture as the format stores it."""
        channels = row_bands.channels if self.grey else 3
        samples = channels + (row_bands.opacity and self.alpha)
        depth = row_bands.dtype.itemsize if self.deep else 1
        return row_bands.height * row_bands.width * samples * depth


_WEBP_EFFORT = 50
"""Effort of lossless WebP (Pillow's quality): as small as 100 on photos, in a quarter."""

_DEFLATED: Final = 1 / 1032
"""Smallest ratio that deflate can achieve."""

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
"""Formats by file name ending."""
