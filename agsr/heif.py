"""HEIC, the photographs of phones: recognised by their first bytes, opened by pillow-heif."""

from __future__ import annotations

import io
import logging
from typing import Final

from PIL import Image

from agsr.optional import require

FORMAT = "HEIF"
"""Pillow's name, once pillow-heif is loaded."""

ENDINGS: Final = frozenset({".heic", ".heif", ".hif"})
"""Of file names."""

_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")
_ANY_CODEC = (b"mif1", b"msf1")

_log = logging.getLogger(__name__)


def is_heif(content: bytes) -> bool:
    """Whether the bytes of a file begin like HEIC; AVIF, its sibling, does not count."""
    if content[4:8] != b"ftyp":
        return False
    length, brand = int.from_bytes(content[:4], "big"), content[8:12]
    others = content[16 : min(length, 256)]
    return brand in _BRANDS or (brand in _ANY_CODEC and any(known in others for known in _BRANDS))


def open_heif(content: bytes, name: str) -> Image.Image:
    """An opened image; its decoder turns it upright.

    Raises:
        MissingDependencyError: pillow-heif is not installed.
    """
    plugin = require("pillow_heif", extra="heif", purpose=f"{name}: reading HEIC")
    plugin.register_heif_opener()
    image = Image.open(io.BytesIO(content), formats=(FORMAT,))
    if image.info.get("bit_depth", 8) > 8:
        _log.warning("%s: %d bits per channel, read as 8", name, image.info["bit_depth"])
    return image
