"""How large a result is to be, and the shrinking from ×4 to that.

The network enlarges by four. Other sizes are reached by an antialiased bicubic filter (Pillow's, of
a = -0.5), once per channel in float32, rounded once; colour is weighted by alpha meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agsr.contract import SCALE
from agsr.picture import Picture


@dataclass(frozen=True, kw_only=True)
class Sizing:
    """The size of a result: a factor, or a box to fit inside."""

    scale: float = SCALE
    """Output pixels per input pixel along each axis, above 0, at most `SCALE`."""
    box: tuple[int, int] | None = None
    """Largest width and height; the result is as large as fits, but at most ``scale`` times."""

    def __post_init__(self) -> None:
        if not 0 < self.scale <= SCALE:
            raise ValueError(f"scale is {self.scale}; expected above 0, at most {SCALE}")

    def result(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the result of an input."""
        scale = self.scale
        if self.box is None:
            return max(1, round(height * scale)), max(1, round(width * scale))
        scale = min(scale, self.box[0] / width, self.box[1] / height)
        fitted = (max(1, round(height * scale)), max(1, round(width * scale)))
        return min(fitted[0], self.box[1]), min(fitted[1], self.box[0])

    def reached(self, height: int, width: int) -> bool:
        """Whether a result of that size fills the box; ``scale`` may be too little for it."""
        return self.box is None or width >= self.box[0] or height >= self.box[1]

    @property
    def suffix(self) -> str:
        """What tells the size in a file's name: ``_x4``, ``_x1.5``, ``_3840x2160``."""
        if self.box is None:
            return f"_x{self.scale:g}"
        return f"_{self.box[0]}x{self.box[1]}"


def shrunk(picture: Picture, height: int, width: int) -> Picture:
    """A picture at a smaller size; of that size already, it is returned as it is."""
    if picture.pixels.shape[:2] == (height, width):
        return picture
    size, dtype = (width, height), picture.pixels.dtype
    if picture.alpha is None:
        return replace(picture, pixels=_rounded(_resized(picture.pixels, size), dtype))
    alpha = picture.alpha.astype(np.float32)
    share = alpha if picture.pixels.ndim == 2 else alpha[..., None]
    weighted = _resized(picture.pixels * share, size)
    small = _resized(alpha, size)
    divisor = small if picture.pixels.ndim == 2 else small[..., None]
    # Where next to nothing is visible, a quotient would be noise.
    colour = np.where(divisor < 0.5, _resized(picture.pixels, size), weighted / divisor.clip(0.5))
    return replace(picture, pixels=_rounded(colour, dtype), alpha=_rounded(small, dtype))


def _resized(values: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    """``(H, W[, C])`` → float32 of ``size`` (width, height)."""
    if values.ndim == 3:
        planes = [_resized(values[..., channel], size) for channel in range(values.shape[2])]
        return np.stack(planes, axis=2)
    image = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC))


def _rounded(values: NDArray[Any], dtype: np.dtype[Any]) -> Any:
    return np.floor(values.clip(0, np.iinfo(dtype).max) + np.float32(0.5)).astype(dtype)
