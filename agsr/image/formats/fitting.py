"""Reduce a picture's `Metadata` to what a format can hold; translate or report the rest."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from agsr.image.formats.writable import Format
from agsr.image.metadata import Metadata
from agsr.image.metadata.colour import Colour
from agsr.image.metadata.exif import parse_exif
from agsr.image.metadata.exif_changes import with_text
from agsr.image.metadata.iptc import LARGEST_SEGMENT
from agsr.image.metadata.stored import COMMENT, Text
from agsr.system.text import counted, listed

_LONGEST_COMMENT = 65_000
"""Maximum bytes of a JPEG comment segment."""
_SHOWN = 40
"""Characters of a keyword shown in a message."""

_log = logging.getLogger(__name__)


def fitted_metadata(metadata: Metadata, form: Format, channels: int, name: str) -> Metadata:
    """Return the metadata that a format can hold; report the rest in one warning.

    Args:
        metadata: Metadata of the result, at its size.
        form: The format.
        channels: Colour channels of the result: 3 (RGB) or 1 (grey).
        name: File name for the warning.
    """
    lost = list[str]()
    fitted = _with_colour(metadata, form, channels, lost)
    fitted = _with_blocks(_with_texts(fitted, form, lost), form, lost)
    if fitted.aspect is not None and not form.iptc:
        lost.append("pixel aspect ratio")
        fitted = replace(fitted, aspect=None)
    if fitted.dpi is not None and not _holds(form, fitted.dpi):
        lost.append("resolution")
        fitted = replace(fitted, dpi=None)
    if fitted.dpi is not None:
        fitted = replace(fitted, aspect=None)
    if lost:
        _log.warning("%s: %s can't hold its %s", name, form.name, listed(lost))
    return fitted


def _holds(form: Format, dpi: tuple[float, float]) -> bool:
    """Return True if a format can store a resolution."""
    if form.largest_dpi is not None and round(max(dpi)) > form.largest_dpi:
        return False
    return form.dpi or form.profile


def _with_colour(metadata: Metadata, form: Format, channels: int, lost: list[str]) -> Metadata:
    colour, icc = metadata.colour, metadata.icc
    if not form.profile:
        known = icc is None and (colour is None or colour.standard)
        lost += [] if known else ["ICC profile" if icc else "colour description"]
        return replace(metadata, icc=None, colour=None)
    if colour is None:
        return metadata
    if form.name == "PNG":
        return _in_png(metadata, colour, channels)
    if colour.levels:
        lost.append("HDR brightness levels")
    if form.codes and colour.code_points and not colour.narrow and (icc is None or colour.hdr):
        return replace(metadata, icc=None, colour=None if colour.standard else colour)
    if icc is None and not colour.standard:
        icc = colour.profile(channels)
        if icc is None:
            lost.append(f"colour description ({colour.hdr or 'code points'})")
    return replace(metadata, icc=icc, colour=None)


def _in_png(metadata: Metadata, colour: Colour, channels: int) -> Metadata:
    """Add a profile for programs that ignore code points, and for curves."""
    if metadata.icc is None and (colour.curves or (colour.codes and not colour.standard)):
        return replace(metadata, icc=colour.profile(channels))
    return metadata


def _with_texts(metadata: Metadata, form: Format, lost: list[str]) -> Metadata:
    """Move texts to the fields that the format has for them."""
    if form.text or not metadata.text:
        return metadata
    rest, comment = list(metadata.text), list[Text]()
    if form.comment:
        fitting = [t for t in rest if t.keyword == COMMENT and len(t.text) < _LONGEST_COMMENT // 4]
        comment = fitting[:1]
        rest = [text for text in rest if text not in comment]
    exif = metadata.exif
    if form.profile and rest:
        long = [t for t in rest if form.segment and len(t.text) > _LONGEST_COMMENT // 8]
        block, others = with_text(parse_exif(exif or b""), tuple(t for t in rest if t not in long))
        exif, rest = None if block.empty else block.to_bytes(), [*others, *long]
    lost += [f"text '{text.keyword[:_SHOWN]}'" for text in rest]
    return replace(metadata, exif=exif, text=tuple(comment))


def _with_blocks(metadata: Metadata, form: Format, lost: list[str]) -> Metadata:
    """Drop EXIF, XMP and IPTC that are too long."""
    limits = {
        "exif": form.segment if form.profile else 0,
        "xmp": form.segment if form.profile else 0,
        "iptc": (LARGEST_SEGMENT if form.segment else None) if form.iptc else 0,
    }
    for field, limit in limits.items():
        data = getattr(metadata, field)
        if data is not None and limit is not None and len(data) > limit:
            size = f" of {counted(len(data), 'byte')}" if limit else ""
            lost.append(field.upper() + size)
            nothing: dict[str, Any] = {field: None}
            metadata = replace(metadata, **nothing)
    return metadata
