"""HEIC, the photographs of phones: recognised by their first bytes, decoded by pillow-heif.

pillow-heif is called directly. It could teach Pillow to open such files, but for the whole process,
and that belongs to the program that uses this package.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from agsr.errors import ImageError
from agsr.image.high_bit_depth import stretched
from agsr.image.metadata import Metadata, described, warn_of_pages
from agsr.image.metadata.boxes import BoxFacts
from agsr.image.metadata.collect import apply_boxes
from agsr.image.metadata.found import Found
from agsr.image.picture import Picture
from agsr.system.optional_import import require

ENDINGS: Final = frozenset({".heic", ".heif", ".hif"})
"""Of file names."""

_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")
_ANY_CODEC = (b"mif1", b"msf1")
_MOVED, _LYING = 3, 6
"""Orientations that stand for all others: of the same sides, and of exchanged ones."""
_COLOURS: Final = {"RGB": 3, "RGBA": 3, "RGBa": 3, "L": 1, "LA": 1}


def is_heif(content: bytes) -> bool:
    """Whether the bytes of a file begin like HEIC; AVIF, its sibling, does not count."""
    if content[4:8] != b"ftyp":
        return False
    length, brand = int.from_bytes(content[:4], "big"), content[8:12]
    others = content[16 : min(length, 256)]
    return brand in _BRANDS or (brand in _ANY_CODEC and any(known in others for known in _BRANDS))


def read_heif(content: bytes, name: str, check: Callable[[tuple[int, int]], None]) -> Picture:
    """Decode the main picture of a file; its decoder turns it upright. 10 and 12 bits become 16.

    Args:
        content: The whole file.
        name: Of the file, for messages.
        check: Called with width and height before pixels are decoded.

    Raises:
        MissingDependencyError: pillow-heif is not installed.
        ImageError: Pixels of an unexpected kind.
    """
    plugin = require("pillow_heif", extra="heif", purpose=f"{name}: reading HEIC")
    file = plugin.open_heif(io.BytesIO(content), convert_hdr_to_8bit=False, hdr_to_16bit=False)
    check(file.size)
    warn_of_pages(len(file), name, "main one" if file.primary_index else "first")
    info = file.info
    found = Found(icc=info.get("icc_profile") or None, exif=info.get("exif"), xmp=info.get("xmp"))
    facts = apply_boxes(found, content)
    metadata = _of_turned(found, facts, file.size, name)
    mode, _, depth = str(file.mode).partition(";")
    if mode not in _COLOURS:
        raise ImageError(f"{name}: HEIC of {file.mode} pixels; expected grey or RGB")
    samples = np.asarray(file)
    samples = samples.reshape(*samples.shape[:2], -1)
    if depth:
        bits = int(info.get("bit_depth") or 0)
        samples = stretched(samples, bits if 8 < bits <= 16 else max(facts.depth, 10))
    return Picture(*_parts(samples, _COLOURS[mode]), metadata)


def _of_turned(found: Found, facts: BoxFacts, size: tuple[int, int], name: str) -> Metadata:
    """Judge what was found with pixels that the decoder has turned and cropped.

    EXIF and XMP name places and sides of the stored pixels. Their orientation does not count.
    """
    sides = facts.quarters % 2 == 1
    corner = facts.crop[:2] if facts.crop else (0, 0)
    moved = bool(facts.quarters or facts.mirrored or corner != (0, 0))
    found.orientation = _LYING if sides else _MOVED if moved else 1
    return described(found, size[::-1] if sides else size, name)[0]


def _parts(samples: NDArray[Any], colours: int) -> tuple[NDArray[Any], NDArray[Any] | None]:
    alpha = samples[..., colours].copy() if samples.shape[2] > colours else None
    return np.ascontiguousarray(samples[..., :colours] if colours == 3 else samples[..., 0]), alpha
