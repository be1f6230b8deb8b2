"""What a file holds beside its pixels: filled by the readers, judged by `agsr.image.metadata`."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

from agsr.image.metadata.colour import Colour


class Text(NamedTuple):
    """A text of a PNG file, or a comment of another one."""

    keyword: str
    text: str
    language: str = ""
    translated: str = ""
    """The keyword in this language."""


COMMENT = "Comment"
"""Keyword of what other formats have as their only text."""


@dataclass
class Found:
    """As it stands in the file; nothing is turned or removed yet."""

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    """IPTC-IIM records."""
    dpi: tuple[float, float] | None = None
    aspect: tuple[float, float] | None = None
    """Pixels along x and y of a unit that is not named; unequal."""
    colour: Colour | None = None
    text: list[Text] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    """Names of what can't be carried over."""
    orientation: int | None = None
    """Where the file has it outside of EXIF and XMP."""


def whole_density(aspect: tuple[float, float]) -> tuple[int, int]:
    """Return two numbers of 16 bits in the same proportion."""
    ratio = Fraction(aspect[0] / aspect[1]).limit_denominator(60_000)
    if ratio.numerator > 60_000:
        return 60_000, 1
    return max(ratio.numerator, 1), ratio.denominator
