"""Update EXIF tags: remove those that become false, and scale those that depend on the size."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Final

from agsr.image.metadata.exif import ORIENTATION, Exif
from agsr.image.metadata.ifd import ASCII, LONG, RATIONAL, SHORT, UNDEFINED, Directory, Entry
from agsr.image.metadata.stored import COMMENT, Text

X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296
NO_UNIT, INCH = 1, 2
_PER_INCH: Final = {2: 1.0, 3: 2.54}
"""Factors to dots per inch, by resolution unit: inch, centimetre."""
_LARGEST_DPI: Final = 1e5

STRUCTURE: Final = frozenset(
    {*range(254, 267), 273, *range(277, 282), 284, *range(288, 294), 297, 301}
    | {*range(317, 348), *range(512, 533), 700, 33421, 33422, 33723, 34377, 34675}
)
"""TIFF tags that describe the stored pixels, or whose contents are stored elsewhere here."""

_FALSE: Final = frozenset({0x9101, 0x9102, 0xA005})
"""Tags about JPEG encoding, and pointers."""
_WIDTH, _HEIGHT = 0xA002, 0xA003
_FOCAL_X, _FOCAL_Y, _FOCAL_UNIT = 0xA20E, 0xA20F, 0xA210
_SUBJECTS: Final = (0x9214, 0xA214)
"""Tags of positions in the picture, in pixels."""

_USER_COMMENT = 0x9286
_TEXTS: Final = {"Description": 270, "Software": 305, "Author": 315, "Copyright": 33432}
"""PNG keywords and the equivalent tags."""
_PARAMETERS: Final = "parameters"
"""Keyword of image generators' settings in PNG; in other formats they write `_USER_COMMENT`."""


def orientation_of(exif: Exif) -> int | None:
    """Return the orientation, 1 to 8; None if the tag is missing or invalid."""
    value = next(iter(numbers(exif, exif.main, ORIENTATION)), None)
    return int(value) if value is not None and value in range(1, 9) else None


def dpi_of(exif: Exif) -> tuple[float, float] | None:
    """Return the pixels per inch along x and y."""
    factor = _PER_INCH.get(int(next(iter(numbers(exif, exif.main, RESOLUTION_UNIT)), INCH)))
    found = densities_of(exif)
    return (found[0] * factor, found[1] * factor) if found and factor else None


def densities_of(exif: Exif) -> tuple[float, float] | None:
    """Return the resolutions along x and y, in the stored unit."""
    values = [numbers(exif, exif.main, tag) for tag in (X_RESOLUTION, Y_RESOLUTION)]
    if not all(values):
        return None
    return usable_dpi(float(values[0][0]), float(values[1][0]))


def usable_dpi(x: float, y: float) -> tuple[float, float] | None:
    """Return both if they are valid resolutions, else None.

    >>> usable_dpi(300, 300), usable_dpi(0, 300)
    ((300, 300), None)
    """
    return (x, y) if 0 < x < _LARGEST_DPI and 0 < y < _LARGEST_DPI else None


def numbers(exif: Exif, directory: Directory, tag: int) -> tuple[Fraction | float, ...]:
    """Return the values of a tag; empty if missing or not numeric."""
    return directory[tag].numbers(exif.order) if tag in directory else ()


def upright(exif: Exif, turned: bool, sides: bool) -> Exif:
    """Remove tags that become false, and set the orientation to 1.

    Args:
        exif: The block as stored.
        turned: Whether the pixels were rotated or mirrored.
        sides: Whether rows and columns were swapped.
    """
    main = {tag: e for tag, e in exif.main.items() if tag not in STRUCTURE - {ORIENTATION}}
    false = {*_FALSE, *(_SUBJECTS if turned else ())}
    details = {tag: e for tag, e in exif.details.items() if tag not in false}
    if sides:
        _swap(main, X_RESOLUTION, Y_RESOLUTION)
        _swap(details, _FOCAL_X, _FOCAL_Y)
        _swap(details, _WIDTH, _HEIGHT)
    if not main.keys() - {ORIENTATION} and not (details or exif.gps):
        return Exif()
    if ORIENTATION in main:
        main[ORIENTATION] = exif.entry(SHORT, 1)
    return replace(exif, main=main, details=details, lost=())


def sized(exif: Exif, old: tuple[int, int] | None, new: tuple[int, int]) -> Exif:
    """Scale the tags that count pixels.

    Args:
        exif: Block of an upright picture.
        old: Height and width of that picture; None if unknown.
        new: Height and width of the result.
    """
    details = dict(exif.details)
    for tag, side in ((_HEIGHT, new[0]), (_WIDTH, new[1])):
        if tag in details:
            details[tag] = exif.entry(LONG, side)
    if old is not None and old != new:
        scale = Fraction(new[0], old[0]), Fraction(new[1], old[1])
        _scale_focal(exif, details, scale)
        _scale_subjects(exif, details, scale)
    return replace(exif, details=details)


def with_density(exif: Exif, density: tuple[float, float], unit: int) -> Exif:
    """Set the resolution along x and y, in pixels per `INCH` or without a unit."""
    tags = dict(zip((X_RESOLUTION, Y_RESOLUTION), density, strict=True))
    entries = {tag: rational(exif, value) for tag, value in tags.items()}
    return replace(exif, main=exif.main | entries | {RESOLUTION_UNIT: exif.entry(SHORT, unit)})


def rational(exif: Exif, value: float | Fraction) -> Entry:
    """Return a rational entry for a non-negative number."""
    fraction = Fraction(value).limit_denominator(1 << 20)
    while max(fraction.numerator, fraction.denominator) >= 1 << 32:
        fraction = Fraction(fraction.numerator >> 1, max(fraction.denominator >> 1, 1))
    return exif.entry(RATIONAL, fraction.numerator, fraction.denominator)


def with_text(exif: Exif, texts: tuple[Text, ...]) -> tuple[Exif, list[Text]]:
    """Move texts to equivalent tags that are unused.

    Returns:
        The block, and the texts without a free tag.
    """
    main, details, rest = dict(exif.main), dict(exif.details), list[Text]()
    ordered = sorted(texts, key=lambda text: text.keyword != _PARAMETERS)
    for text in ordered:
        tag = _TEXTS.get(text.keyword)
        if tag is not None and tag not in main:
            main[tag] = Entry(ASCII, text.text.encode() + b"\0")
        elif text.keyword in (_PARAMETERS, COMMENT) and _USER_COMMENT not in details:
            details[_USER_COMMENT] = _user_comment(exif, text.text)
        elif tag is None or main[tag].data.rstrip(b"\0") != text.text.encode():
            rest.append(text)
    return replace(exif, main=main, details=details), rest


def _user_comment(exif: Exif, text: str) -> Entry:
    if text.isascii():
        return Entry(UNDEFINED, b"ASCII\0\0\0" + text.encode())
    code = "utf-16-le" if exif.order == "<" else "utf-16-be"
    return Entry(UNDEFINED, b"UNICODE\0" + text.encode(code, "replace"))


def _swap(directory: Directory, a: int, b: int) -> None:
    if a in directory and b in directory:
        directory[a], directory[b] = directory[b], directory[a]


def _scale_focal(exif: Exif, details: Directory, scale: tuple[Fraction, Fraction]) -> None:
    """Scale pixels per unit length of the sensor."""
    for tag, factor in ((_FOCAL_Y, scale[0]), (_FOCAL_X, scale[1])):
        found = numbers(exif, details, tag)
        if found and isinstance(found[0], Fraction) and found[0] > 0:
            details[tag] = rational(exif, found[0] * factor)


def _scale_subjects(exif: Exif, details: Directory, scale: tuple[Fraction, Fraction]) -> None:
    """Scale subject areas: a point, optionally with a diameter, or with width and height."""
    for tag in _SUBJECTS:
        found = numbers(exif, details, tag)
        if not found:
            continue
        factors = (scale[1], scale[0], scale[1], scale[0])
        values = [round(value * factor) for value, factor in zip(found, factors, strict=False)]
        del details[tag]
        if all(0 <= value < 1 << 16 for value in values):
            details[tag] = exif.entry(SHORT, *values)
