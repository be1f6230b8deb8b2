"""What a file says about its picture, as it holds for the result.

`agsr.image.metadata.collect` finds it; here it is kept if it is still true, and removed if it has
become false: orientation is applied to the pixels by `agsr.image.decode`, thumbnails show the
picture as it was, gain maps stay behind. `agsr.image.encode` writes it. What is lost is reported.
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
from agsr.image.metadata.found import Found, Text

_TURNED = 5
"""From this orientation on, rows and columns are swapped."""

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
    """Pixels per inch along x and y, unchanged: a larger picture prints larger."""
    colour: Colour | None = None
    """The meaning of the values where no profile gives it."""
    iptc: bytes | None = None
    """IPTC-IIM records."""
    text: tuple[Text, ...] = ()
    """Texts of PNG files; comments of others."""
    aspect: tuple[float, float] | None = None
    """Pixels along x and y per unit of the same length, where ``dpi`` is not known."""
    size: tuple[int, int] | None = field(default=None, compare=False)
    """Height and width of the picture it was read with, upright."""

    def stripped(self) -> Metadata:
        """Without people, places and devices; the profile is part of the colours."""
        return Metadata(icc=self.icc, colour=self.colour, aspect=self.aspect, size=self.size)

    def for_size(self, height: int, width: int) -> Metadata:
        """With the lengths in pixels that EXIF and XMP name changed to those of a result."""
        exif, xmp = self.exif, self.xmp
        if exif is not None:
            exif = sized(parse_exif(exif), self.size, (height, width)).to_bytes()
        if xmp is not None:
            xmp = packets.for_size(xmp, self.size, (height, width))
        return replace(self, exif=exif, xmp=xmp, size=(height, width))


def described(found: Found, size: tuple[int, int], name: str) -> tuple[Metadata, int]:
    """Judge what was found.

    Args:
        found: In a file.
        size: Width and height of its pixels as they are stored.
        name: Of the file, for warnings.

    Returns:
        What holds for the upright picture, and the orientation (1 to 8) its pixels are stored in.
    """
    block = parse_exif(found.exif or b"")
    if block.lost:
        _log.warning("%s: its EXIF data is damaged; %s lost", name, _tags(len(block.lost)))
    in_xmp = packets.orientation(found.xmp) if found.xmp else None
    orientation = found.orientation or orientation_of(block) or in_xmp or 1
    sides = orientation >= _TURNED
    xmp, beside = None, list[str]()
    if found.xmp and found.xmp.strip(b"\0"):
        xmp, beside = packets.without_false(found.xmp.rstrip(b"\0"), orientation != 1)
    kept = upright(block, orientation != 1, sides)
    lost = list(dict.fromkeys([*found.lost, *beside]))
    if lost:
        _log.warning("%s: the result is without its %s", name, listed(lost))
    dpi, aspect = found.dpi or dpi_of(block), found.aspect
    metadata = Metadata(
        icc=found.icc or None,
        exif=None if kept.empty else kept.to_bytes(),
        xmp=xmp or None,
        dpi=dpi[::-1] if dpi and sides else dpi,
        colour=found.colour,
        iptc=found.iptc or None,
        text=tuple(found.text),
        aspect=aspect[::-1] if aspect and sides else aspect,
        size=size if sides else size[::-1],
    )
    return metadata, orientation


def warn_of_pages(count: int, name: str, used: str = "first") -> None:
    """Warn if a file holds more than one picture, of which one is used."""
    if count > 1:
        _log.warning("%s: holds %d pictures; only the %s is taken", name, count, used)


def listed(names: list[str]) -> str:
    """Return names as words: ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


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


def _tags(count: int) -> str:
    return "1 tag is" if count == 1 else f"{count} tags are"
