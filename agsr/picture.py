"""A decoded image file: what `agsr.decode` makes, the `Upscaler` enlarges, `agsr.encode` writes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from agsr.metadata import Metadata

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
"""``(H, W, 3)`` RGB or ``(H, W)`` grey."""


@dataclass(frozen=True)
class Picture:
    """Pixels, opacity and what the file said about them."""

    pixels: Pixels
    """RGB ``(H, W, 3)`` or grey ``(H, W)``, uint8 or uint16, upright."""
    alpha: Pixels | None = None
    """Opacity ``(H, W)`` in the same type, if the file has it; colour isn't multiplied by it."""
    metadata: Metadata = field(default_factory=Metadata)
    """ICC profile, EXIF, XMP and resolution."""
