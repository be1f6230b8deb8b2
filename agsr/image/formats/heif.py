"""Read HEIC photographs with pillow-heif.

pillow-heif is called directly. Registering it as a Pillow plugin would affect the whole process,
which is the decision of the program that uses this package.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from agsr.errors import ImageError
from agsr.image.high_bit_depth import scale_to_16_bits
from agsr.image.metadata import Metadata, resolve_metadata, warn_of_pages
from agsr.image.metadata.boxes import BoxProperties
from agsr.image.metadata.collect import apply_boxes
from agsr.image.metadata.stored import StoredMetadata
from agsr.image.picture import Picture
from agsr.system.optional_import import require

_MOVED, _LYING = 3, 6
"""Representative orientations: sides unchanged, and sides swapped."""
_COLOURS: Final = {"RGB": 3, "RGBA": 3, "RGBa": 3, "L": 1, "LA": 1}


def read_heif(content: bytes, name: str, check: Callable[[tuple[int, int]], None]) -> Picture:
    """Decode the primary picture, upright; 10 and 12 bits are scaled to 16.

    Args:
        content: The whole file.
        name: File name for messages.
        check: Called with width and height before pixels are decoded.

    Raises:
        MissingDependencyError: pillow-heif is not installed.
        ImageError: Unexpected pixel mode.
    """
    plugin = require("pillow_heif", extra="heif", purpose=f"{name}: reading HEIC")
    file = plugin.open_heif(io.BytesIO(content), convert_hdr_to_8bit=False, hdr_to_16bit=False)
    check(file.size)
    warn_of_pages(len(file), name, "main one" if file.primary_index else "first")
    info = file.info
    stored = StoredMetadata(
        icc=info.get("icc_profile") or None, exif=info.get("exif"), xmp=info.get("xmp")
    )
    properties = apply_boxes(stored, content)
    metadata = _resolve_turned(stored, properties, file.size, name)
    mode, _, depth = str(file.mode).partition(";")
    if mode not in _COLOURS:
        raise ImageError(f"{name}: HEIC of {file.mode} pixels; expected grey or RGB")
    samples = np.asarray(file)
    samples = samples.reshape(*samples.shape[:2], -1)
    if depth:
        bits = int(info.get("bit_depth") or 0)
        samples = scale_to_16_bits(samples, bits if 8 < bits <= 16 else max(properties.depth, 10))
    return Picture(*_parts(samples, _COLOURS[mode]), metadata)


def _resolve_turned(
    stored: StoredMetadata, properties: BoxProperties, size: tuple[int, int], name: str
) -> Metadata:
    """Resolve the metadata of pixels that the decoder has rotated and cropped.

    EXIF and XMP refer to the stored pixels. Their orientation is ignored.
    """
    sides = properties.quarters % 2 == 1
    corner = properties.crop[:2] if properties.crop else (0, 0)
    moved = bool(properties.quarters or properties.mirrored or corner != (0, 0))
    stored.orientation = _LYING if sides else _MOVED if moved else 1
    return resolve_metadata(stored, size[::-1] if sides else size, name)[0]


def _parts(samples: NDArray[Any], colours: int) -> tuple[NDArray[Any], NDArray[Any] | None]:
    alpha = samples[..., colours].copy() if samples.shape[2] > colours else None
    return np.ascontiguousarray(samples[..., :colours] if colours == 3 else samples[..., 0]), alpha
