"""Metadata as stored in a file: filled by the readers, resolved by `agsr.image.metadata`."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

from agsr.image.metadata.colour import Colour


class Text(NamedTuple):
    """A text chunk of PNG, or the comment of another format."""

    keyword: str
    text: str
    language: str = ""
    translated: str = ""
    """The keyword, translated."""


COMMENT = "Comment"
"""Keyword for the only text of other formats."""


@dataclass
class StoredMetadata:
    """Metadata exactly as stored; nothing is rotated or removed yet."""

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    """IPTC-IIM records."""
    dpi: tuple[float, float] | None = None
    aspect: tuple[float, float] | None = None
    """Pixels along x and y per unspecified unit; unequal."""
    colour: Colour | None = None
    text: list[Text] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    """Names of contents that can't be carried over."""
    orientation: int | None = None
    """Orientation stored outside EXIF and XMP."""


def whole_density(aspect: tuple[float, float]) -> tuple[int, int]:
    """Return two 16-bit integers in the same ratio."""
    ratio = Fraction(aspect[0] / aspect[1]).limit_denominator(60_000)
    if ratio.numerator > 60_000:
        return 60_000, 1
    return max(ratio.numerator, 1), ratio.denominator
