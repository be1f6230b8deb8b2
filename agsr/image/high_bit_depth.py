"""Decode more than 8 bits per channel with OpenCV, and scale samples to 16 bits."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_log = logging.getLogger(__name__)


def decode_by_opencv(
    image: Image.Image, content: bytes, dtype: Any = np.uint16
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Decode a file to pixels and alpha of ``dtype``, by default 16 bits."""
    import cv2  # slow to load, needed only here

    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.dtype != dtype or sorted(decoded.shape[:2]) != sorted(image.size):
        raise ValueError("OpenCV can't decode it")
    planes = np.asarray(decoded, dtype).reshape(*decoded.shape[:2], -1)
    alpha = np.ascontiguousarray(planes[..., -1]) if planes.shape[2] in (2, 4) else None
    if planes.shape[2] < 3 or (image.format == "PNG" and content[25] in (0, 4)):
        # Grey, which OpenCV may have expanded to three channels.
        pixels = np.ascontiguousarray(planes[..., 0])
        transparent = image.info.get("transparency")
        # A transparent level, which OpenCV ignores.
        if alpha is None and isinstance(transparent, int):
            alpha = np.where(pixels == transparent, 0, 65535).astype(np.uint16)
    else:
        pixels = np.ascontiguousarray(planes[..., 2::-1])
    return pixels, alpha


def scale_to_16_bits(samples: NDArray[Any], bits: int) -> NDArray[np.uint16]:
    """Scale integer samples of ``bits`` bits to 16 bits.

    >>> scale_to_16_bits(np.array([0, 1023]), 10).tolist()
    [0, 65535]
    """
    white = (1 << bits) - 1
    levels = (samples.astype(np.uint32).clip(0, white) * 65535 + white // 2) // white
    return levels.astype(np.uint16)


def warn_of_unused_range(samples: NDArray[Any], bits: int, name: str) -> None:
    """Warn if so much of the range is unused that the picture looks black.

    Cameras and instruments store 12 bits in 16-bit samples, or 8 in 32. The values are not changed,
    as in other programs: TIFF 6.0 forbids brightening them even where MaxSampleValue is given.
    The threshold, a sixteenth of the range (level 15 of 255), is darker than any photograph.

    Args:
        samples: Integers as stored or decoded.
        bits: Bit depth that the file declares; fewer than 16 never warn.
        name: File name for the warning.
    """
    if bits < 16:
        return
    largest, white = int(samples.max()), (1 << bits) - 1
    if not 0 < largest <= white >> 4:
        return
    used = max(8, largest.bit_length() + largest.bit_length() % 2)
    _log.warning(
        "%s: its largest value is %d of %d, so it looks black; if it holds %d-bit values, scale "
        "them to the full range first",
        *(name, largest, white, used),
    )
