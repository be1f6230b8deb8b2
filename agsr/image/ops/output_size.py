"""Output size: one or two passes of the network, then downsampled (`agsr.image.ops.resample`).

Data flow: the user's request (`OutputSize`), bound to a loaded network by `OutputSize.for_network`,
and an input's size → the result's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real

from agsr.contract import MAX_FOREIGN_SCALE, SCALE
from agsr.errors import ImageError

LARGEST = MAX_FOREIGN_SCALE**2
"""Largest output pixels per input pixel along each axis of any network."""

LARGEST_SIDE = 1_000_000
"""Larger sides of a requested size are taken for a typing mistake, pixels."""


@dataclass(frozen=True, kw_only=True)
class OutputSize:
    """Output size: a scale factor, or a box to fit inside.

    >>> OutputSize(network=2).result(10, 20), OutputSize(scale=3, network=2).result(10, 20)
    ((20, 40), (30, 60))
    """

    scale: float | None = None
    """Output pixels per input pixel along each axis, above 0, at most `most`; None means the
    network's scale."""
    box: tuple[int, int] | None = None
    """Maximum width and height, instead of ``scale``: the result is as large as fits, but at most
    `most` times the input."""
    multiple: int = 1
    """Both sides are cropped to a multiple of this: 2 for video."""
    network: int = SCALE
    """Scale of the network that makes the result."""

    def __post_init__(self) -> None:
        scale: object = self.scale
        if scale is not None and (isinstance(scale, bool) or not isinstance(scale, Real)):
            raise TypeError(f"scale is {scale!r}; expected a number above 0, at most {self.most}")
        if not 0 < self.factor <= self.most:
            raise ValueError(
                f"scale is {self.scale}; expected above 0, at most {self.most}{self._limit()}"
            )
        if self.box is not None:
            _check_box(self.box)

    @property
    def factor(self) -> float:
        """The scale, or the network's if none was requested."""
        return self.network if self.scale is None else self.scale

    @property
    def most(self) -> int:
        """Largest scale: two passes of the network."""
        return self.network**2

    def _limit(self) -> str:
        """Explain a limit that another network may exceed, and name one that does if there is."""
        if self.network == SCALE or not self.factor > self.most:
            return ""
        reason = f", two passes of this ×{self.network} network"
        if self.network == 1:
            reason = ": this ×1 network restores and does not enlarge"
        enough = self.factor <= SCALE**2
        return reason + (f"; -w psnr upscales by up to {SCALE**2}" if enough else "")

    def for_network(self, scale: int) -> OutputSize:
        """Return this request for a network of that scale.

        Raises:
            ValueError: The requested scale is more than two passes of the network make.
        """
        return self if scale == self.network else replace(self, network=scale)

    def result(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of an input's result.

        Raises:
            ImageError: Both sides of the result would be less than half a pixel.
        """
        if self.box is None and round(max(height, width) * self.factor) == 0:
            raise ImageError(
                f"the result would have 0x0 pixels: {width}x{height} by a scale of "
                f"{self.factor:g}; use {1 / max(height, width):.2g} or more"
            )
        rows, columns = self.uncropped(height, width)
        return rows - rows % self.multiple, columns - columns % self.multiple

    def uncropped(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of an input's result before it is cropped to `multiple`.

        >>> sizing = OutputSize(network=3, multiple=2)
        >>> sizing.uncropped(5, 7), sizing.result(5, 7)
        ((15, 21), (14, 20))
        """
        rows, columns = self._exact(height, width)
        return max(rows, self.multiple), max(columns, self.multiple)

    def _exact(self, height: int, width: int) -> tuple[int, int]:
        if self.box is None:
            return max(1, round(height * self.factor)), max(1, round(width * self.factor))
        scale = min(self.most, self.box[0] / width, self.box[1] / height)
        fitted = (max(1, round(height * scale)), max(1, round(width * scale)))
        return min(fitted[0], self.box[1]), min(fitted[1], self.box[0])

    def reached(self, height: int, width: int) -> bool:
        """Return True if a result of that size fills the box, which `most` may prevent."""
        return self.box is None or width >= self.box[0] or height >= self.box[1]

    @property
    def suffix(self) -> str:
        """File name suffix: the scale, or the box to fit inside.

        ``_x4``, ``_x1.5``, ``_fit3840x2160``, ``_max4000``.
        """
        if self.box is None:
            return f"_x{self.factor:g}"
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


def halfway(height: int, width: int, scale: int) -> tuple[int, int]:
    """Return the intermediate size between two passes: the smallest that suffices.

    >>> halfway(10, 16, 4)
    (3, 4)
    """
    return -(-height // scale), -(-width // scale)
