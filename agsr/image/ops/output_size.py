"""Output size: the network upscales by 4, once or twice; `agsr.image.ops.resample` downsamples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real

from agsr.contract import SCALE
from agsr.errors import ImageError

MAX_SCALE = SCALE**2
"""Largest scale: two passes of the network."""


@dataclass(frozen=True, kw_only=True)
class OutputSize:
    """Output size: a scale factor, or a box to fit inside.

    >>> OutputSize(scale=2).result(30, 40), OutputSize(box=(120, 120)).result(30, 40)
    ((60, 80), (90, 120))
    """

    scale: float = SCALE
    """Output pixels per input pixel along each axis, above 0, at most `MAX_SCALE`."""
    box: tuple[int, int] | None = None
    """Maximum width and height, instead of ``scale``: the result is as large as fits, but at most
    `MAX_SCALE` times the input."""
    multiple: int = 1
    """Both sides are rounded down to a multiple of this: 2 for video."""

    def __post_init__(self) -> None:
        scale: object = self.scale
        if isinstance(scale, bool) or not isinstance(scale, Real):
            raise TypeError(f"scale is {scale!r}; expected a number above 0, at most {MAX_SCALE}")
        if not 0 < self.scale <= MAX_SCALE:
            raise ValueError(f"scale is {self.scale}; expected above 0, at most {MAX_SCALE}")
        if self.box is not None:
            _check_box(self.box)

    def result(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of an input's result.

        Raises:
            ImageError: Both sides of the result would be less than half a pixel.
        """
        if self.box is None and round(max(height, width) * self.scale) == 0:
            raise ImageError(
                f"the result would have 0x0 pixels: {width}x{height} by a scale of {self.scale:g}; "
                f"use {1 / max(height, width):.2g} or more"
            )
        exact = self._exact(height, width)
        return self._multiple(exact[0]), self._multiple(exact[1])

    def _multiple(self, side: int) -> int:
        return max(self.multiple, side - side % self.multiple)

    def _exact(self, height: int, width: int) -> tuple[int, int]:
        if self.box is None:
            return max(1, round(height * self.scale)), max(1, round(width * self.scale))
        scale = min(MAX_SCALE, self.box[0] / width, self.box[1] / height)
        fitted = (max(1, round(height * scale)), max(1, round(width * scale)))
        return min(fitted[0], self.box[1]), min(fitted[1], self.box[0])

    def reached(self, height: int, width: int) -> bool:
        """Return True if a result of that size fills the box, which `MAX_SCALE` may prevent."""
        return self.box is None or width >= self.box[0] or height >= self.box[1]

    @property
    def suffix(self) -> str:
        """File name suffix: the scale, or the box to fit inside.

        ``_x4``, ``_x1.5``, ``_fit3840x2160``, ``_max4000``.
        """
        if self.box is None:
            return f"_x{self.scale:g}"
        width, height = self.box
        return f"_max{width}" if width == height else f"_fit{width}x{height}"


def _check_box(box: object) -> None:
    message = f"size is {box!r}; expected (width, height), each from 1"
    if not isinstance(box, Sequence) or isinstance(box, str | bytes):
        raise TypeError(message)
    if not all(isinstance(side, Integral) and not isinstance(side, bool) for side in box):
        raise TypeError(f"{message}, as whole numbers")
    if len(box) != 2 or min(box) < 1:
        raise ValueError(message)


def halfway(height: int, width: int) -> tuple[int, int]:
    """Return the intermediate size between two passes: the smallest that suffices.

    >>> halfway(10, 16)
    (3, 4)
    """
    return -(-height // SCALE), -(-width // SCALE)
