"""Input and output format of a foreign network: layout, type, range, channels and sizes.

Data flow: our ``(B, 3, H, W)`` float32 RGB in [0, 1] → `IoSpec.padded` → `IoSpec.encode` → network
→ `IoSpec.decode` → a batch of the same kind, as many times as high and as wide as the scale.
`agsr.engines.foreign.probe` finds the `IoSpec` of a network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from agsr.backend import Batch
from agsr.bicubic import upscale_planes
from agsr.contract import CHANNELS, SizeRule
from agsr.errors import HintsError
from agsr.metrics.luma import full_range_luma

Layout = Literal["NCHW", "NHWC"]
Order = Literal["rgb", "bgr"]
Array = NDArray[Any]

PEAKS = (1, 255)
"""Possible values of white."""

RGBA = 4
"""Channels of a network that reads and writes alpha."""


def _one_of(*known: str) -> Callable[[str], str]:
    def choose(text: str) -> str:
        return known[known.index(text)]

    return choose


def _number_of(*known: int) -> Callable[[str], int]:
    def choose(text: str) -> int:
        return known[known.index(int(text))]

    return choose


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _yes_or_no(text: str) -> bool:
    return {"yes": True, "no": False}[text]


def _size(text: str) -> tuple[int, int]:
    width, height = map(_positive, text.split("x"))
    return height, width


def _is_count(value: object) -> bool:
    return isinstance(value, int) and value >= 1


_KNOWN: dict[str, tuple[Any, ...]] = {
    "layout": get_args(Layout),
    "channels": (1, CHANNELS, RGBA),
    "input_peak": PEAKS,
    "output_peak": PEAKS,
    "order": get_args(Order),
    "output_order": get_args(Order),
    "square": (True, False),
}
"""Hints with a fixed set of values."""

_HINTS: dict[str, Callable[[str], Any]] = {
    "layout": _one_of(*_KNOWN["layout"]),
    "channels": _number_of(*_KNOWN["channels"]),
    "input_peak": _number_of(*PEAKS),
    "output_peak": _number_of(*PEAKS),
    "order": _one_of(*_KNOWN["order"]),
    "output_order": _one_of(*_KNOWN["order"]),
    "size": _size,
    "multiple": _positive,
    "minimum": _positive,
    "square": _yes_or_no,
    "output": str,
}


@dataclass(frozen=True, kw_only=True)
class Hints:
    """Known properties of a network; None means unknown, to be probed.

    >>> Hints.parse("order=bgr,input_peak=255,size=64x48").size
    (48, 64)

    Raises:
        HintsError: A value is out of range.
    """

    layout: Layout | None = None
    """Order of the input's axes."""
    channels: int | None = None
    """3, 1 for luma, or 4 for RGB with alpha."""
    input_peak: int | None = None
    """Value of white in the input, 1 or 255."""
    output_peak: int | None = None
    """Value of white in the output, 1 or 255."""
    order: Order = "rgb"
    """Order of colours. It can't be probed: networks treat colours too much alike."""
    output_order: Order | None = None
    """Order of colours in the output; None means that of the input, unless the output shows red and
    blue exchanged."""
    size: tuple[int, int] | None = None
    """The only height and width that it accepts, LR pixels."""
    multiple: int | None = None
    """Heights and widths must be multiples of it."""
    minimum: int | None = None
    """Shortest side that it accepts, LR pixels."""
    square: bool = False
    """Whether height and width must be equal."""
    output: str | None = None
    """Name of the output, if there are several."""

    def __post_init__(self) -> None:
        for name, known in _KNOWN.items():
            value = getattr(self, name)
            if value is not None and value not in known:
                raise HintsError(f"hint {name} is {value!r}; expected one of {known}")
        for name in ("multiple", "minimum"):
            value = getattr(self, name)
            if value is not None and not _is_count(value):
                raise HintsError(f"hint {name} is {value!r}; expected a number from 1")
        size = self.size
        if size is not None and not (len(size) == 2 and all(_is_count(side) for side in size)):
            raise HintsError(f"hint size is {size!r}; expected height and width, from 1 each")

    @classmethod
    def parse(cls, text: str) -> Hints:
        """Parse ``NAME=VALUE,...``, like ``order=bgr,input_peak=255,size=64x48`` (width x height).

        Raises:
            HintsError: A hint is unknown, or its value is invalid.
        """
        parts = [part.strip().partition("=") for part in text.split(",") if part.strip()]
        try:
            return cls(**{name: _HINTS[name](value) for name, _, value in parts})
        except (KeyError, ValueError):
            known = ", ".join(_HINTS)
            raise HintsError(f"hints are '{text}'; expected NAME=VALUE,... of {known}") from None


@dataclass(frozen=True, kw_only=True)
class IoSpec:
    """Format of a network's input and output."""

    input: str
    """Name of the input."""
    output: str
    """Name of the output."""
    input_type: str
    """``float32``, ``float16`` or ``uint8``."""
    output_type: str
    """Type of the output, like `input_type`."""
    input_layout: Layout
    """Order of the input's axes."""
    output_layout: Layout
    """Order of the output's axes."""
    channels: int
    """3, 1 for luma, or 4 for RGB with alpha."""
    order: Order
    """Order of the colours in the input."""
    output_order: Order
    """Order of the colours in the output."""
    scale: int = 1
    """Output pixels per input pixel along each axis."""
    batch: int | None
    """The only batch size that it accepts; None means any."""
    size: tuple[int, int] | None
    """The only height and width that it accepts, LR pixels; None means any."""
    rule: SizeRule
    """Heights and widths that it accepts, unless there is only one size."""
    input_peak: int = 1
    """Value of white in the input."""
    output_peak: int = 1
    """Value of white in the output."""

    @property
    def follows_contract(self) -> bool:
        """Whether input and output are those of this project's exports, but for their names."""
        types = (self.input_type, self.output_type) == ("float32", "float32")
        layouts = (self.input_layout, self.output_layout) == ("NCHW", "NCHW")
        colours = (self.channels, self.order, self.output_order) == (CHANNELS, "rgb", "rgb")
        peaks = (self.input_peak, self.output_peak) == (1, 1)
        free = (self.batch, self.size, self.rule) == (None, None, SizeRule())
        return types and layouts and colours and peaks and free

    @property
    def summary(self) -> str:
        """What input and output are, in words; equal for equal pixels in and out."""
        colours = "luma" if self.channels == 1 else self.output_order.upper()
        result = f"{self.output_layout} {self.output_type} {colours}, white is {self.output_peak}"
        return f"{self.description} → {self.output}: {result}"

    @property
    def description(self) -> str:
        """What the input is, in words: ``NCHW float32 RGB, white is 1``."""
        colours = {1: "luma", CHANNELS: self.order.upper()}.get(self.channels, "RGB with alpha")
        rule = self.rule
        rest = f", multiples of {rule.multiple}" if rule.multiple > 1 else ""
        rest += f", from {rule.minimum}" if rule.minimum > 1 else ""
        rest += ", square" if rule.square else ""
        rest = f", {self.size[1]}x{self.size[0]} pixels" if self.size else rest
        return f"{self.input_layout} {self.input_type} {colours}, white is {self.input_peak}{rest}"

    def padded(self, lr: Batch) -> Batch:
        """Pad a batch by mirroring its lower and right border up to an accepted size."""
        height, width = self.size or self.rule.padded(*lr.shape[2:])
        below, beside = height - lr.shape[2], width - lr.shape[3]
        return np.pad(lr, ((0, 0), (0, 0), (0, below), (0, beside)), mode="reflect")

    def encode(self, lr: Batch) -> Array:
        """``(B, 3, H, W)`` float32 RGB in [0, 1] → the network's input."""
        planes = full_range_luma(lr) if self.channels == 1 else _ordered(lr, self.order)
        if self.channels == RGBA:  # opaque: alpha is upscaled separately, as for other networks
            planes = np.concatenate([planes, np.ones_like(planes[:, :1])], axis=1)
        return _to_type(
            _to_layout(planes * np.float32(self.input_peak), self.input_layout), self.input_type
        )

    def decode(self, result: Array, lr: Batch) -> Batch:
        """The network's output for ``lr`` → ``(B, 3, sH, sW)`` float32 RGB in [0, 1].

        For a luma network, chroma is that of ``lr``, upscaled by bicubic.
        """
        values = np.asarray(result, np.float32) / np.float32(self.output_peak)
        planes: Batch = _from_layout(values, self.output_layout)
        if self.channels == 1:
            return np.asarray(planes + upscale_planes(lr - full_range_luma(lr), self.scale))
        return np.ascontiguousarray(_ordered(planes[:, :CHANNELS], self.output_order))


def _ordered(planes: Batch, order: Order) -> Batch:
    return planes[:, ::-1] if order == "bgr" else planes


def _to_layout(planes: Array, layout: Layout) -> Array:
    return planes if layout == "NCHW" else planes.transpose(0, 2, 3, 1)


def _from_layout(values: Array, layout: Layout) -> Array:
    return values if layout == "NCHW" else values.transpose(0, 3, 1, 2)


def _to_type(values: Array, name: str) -> Array:
    if name == "uint8":
        values = np.floor(np.clip(values, 0, 255) + np.float32(0.5))
    return np.ascontiguousarray(values, dtype=name)
