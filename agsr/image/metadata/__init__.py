"""Metadata of a picture, as it is valid for the result.

`agsr.image.metadata.collect` reads it from a file as `StoredMetadata`. `resolve_metadata` preserves
what stays true and removes what becomes false: `agsr.image.decode` applies the orientation to the
pixels, thumbnails show the old picture, gain maps are not carried over. `agsr.image.encode` writes
the rest. Losses are reported as warnings.
"""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass, field, replace

from PIL import ImageCms

from agsr.image.metadata import xmp as packets
from agsr.image.metadata.colour import Colour
from agsr.image.metadata.exif import parse_exif
from agsr.image.metadata.exif_changes import dpi_of, orientation_of, sized, upright
from agsr.image.metadata.stored import StoredMetadata, Text
from agsr.system.text import counted_are, listed

_TURNED = 5
"""Orientations from this one on swap rows and columns."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Metadata:
    """Metadata that survives a change of the picture's size."""

    icc: bytes | None = None
    """ICC profile: RGB for colour, grey for grey."""
    exif: bytes | None = None
    """``Exif\\0\\0`` and a TIFF structure with orientation 1 and no thumbnail."""
    xmp: bytes | None = None
    """XMP packet, UTF-8."""
    dpi: tuple[float, float] | None = None
    """Pixels per inch along x and y. Unchanged by upscaling: a larger picture prints larger."""
    colour: Colour | None = None
    """Colour space where there is no profile."""
    iptc: bytes | None = None
    """IPTC-IIM records."""
    text: tuple[Text, ...] = ()
    """Text chunks of PNG, comments of other formats."""
    aspect: tuple[float, float] | None = None
    """Pixels along x and y per unit of equal length, if ``dpi`` is unknown."""
    size: tuple[int, int] | None = field(default=None, compare=False)
    """Height and width of the upright source picture."""

    def stripped(self) -> Metadata:
        """Return only what defines the colours and pixels: no people, places or devices."""
        return Metadata(icc=self.icc, colour=self.colour, aspect=self.aspect, size=self.size)

    def for_size(self, height: int, width: int) -> Metadata:
        """Return a copy with the pixel lengths in EXIF and XMP scaled to a result's size."""
        exif, xmp = self.exif, self.xmp
        if exif is not None:
            exif = sized(parse_exif(exif), self.size, (height, width)).to_bytes()
        if xmp is not None:
            xmp = packets.for_size(xmp, self.size, (height, width))
        return replace(self, exif=exif, xmp=xmp, size=(height, width))


def resolve_metadata(
    stored: StoredMetadata, size: tuple[int, int], name: str
) -> tuple[Metadata, int]:
    """Reduce stored metadata to what is true of the upright picture, and warn of losses.

    Args:
        stored: Metadata as read from a file.
        size: Width and height of the stored pixels.
        name: File name for warnings.

    Returns:
        The metadata of the upright picture, and the orientation (1 to 8) of the stored pixels.
    """
    block = parse_exif(stored.exif or b"")
    if block.lost:
        _log.warning(
            "%s: its EXIF data is damaged; %s lost", name, counted_are(len(block.lost), "tag")
        )
    orientation = stored.orientation or orientation_of(block)
    if not orientation:  # XMP last: parsing a long packet takes seconds
        orientation = (packets.orientation(stored.xmp) if stored.xmp else None) or 1
    sides = orientation >= _TURNED
    xmp, beside = None, list[str]()
    if stored.xmp and stored.xmp.strip(b"\0"):
        xmp, beside = packets.without_false(stored.xmp.rstrip(b"\0"), orientation != 1)
    block = upright(block, orientation != 1, sides)
    lost = list(dict.fromkeys([*stored.lost, *beside]))
    if lost:
        _log.warning("%s: the result lacks its %s", name, listed(lost))
    dpi, aspect = stored.dpi or dpi_of(block), stored.aspect
    metadata = Metadata(
        icc=stored.icc or None,
        exif=None if block.empty else block.to_bytes(),
        xmp=xmp or None,
        dpi=dpi[::-1] if dpi and sides else dpi,
        colour=stored.colour,
        iptc=stored.iptc or None,
        text=tuple(stored.text),
        aspect=aspect[::-1] if aspect and sides else aspect,
        size=size if sides else size[::-1],
    )
    return metadata, orientation


def warn_of_pages(count: int, name: str, used: str = "first") -> None:
    """Warn if a file holds more than one picture, of which one is used."""
    if count > 1:
        _log.warning("%s: holds %d pictures; only the %s is used", name, count, used)


def usable_profile(icc: bytes | None, channels: int, name: str) -> bytes | None:
    """Return the profile if it is valid for grey (1) or RGB (3) pixels; else None.

    An unusable profile is reported, because colours may look different without it.
    """
    if icc is None:
        return None
    try:
        space = ImageCms.ImageCmsProfile(io.BytesIO(icc)).profile.xcolor_space
    except OSError:
        _log.warning("%s: its ICC profile is damaged and is dropped", name)
        return None
    if space.strip() == ("GRAY" if channels == 1 else "RGB"):
        return icc
    _log.warning("%s: its ICC profile is for %s and is dropped", name, space.strip())
    return None
