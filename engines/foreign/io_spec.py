"""Input and output format of a foreign network: layout, type, range, channels and sizes.

Data flow: our ``(B, 3, H, W)`` float32 RGB in [0, 1], of an accepted size → `IoSpec.encode` →
network → `IoSpec.decode` → a batch of the same kind, larger by the scale.
`agsr.engines.foreign.probe` finds the `IoSpec` of a network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agsr.backend import Batch
from agsr.bicubic import upscale_planes
from agsr.contract import CHANNELS, SizeRule
from agsr.engines.foreign.hints import RGBA, Layout, Order
from agsr.metrics.luma import full_range_luma

Array = NDArray[Any]


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
    rule: SizeRule
    """Heights and widths that it accepts."""
    input_peak: int = 1
    """Value of white in the input."""
    output_peak: int = 1
    """Value of white in the output."""
    probed: tuple[int, int] = (1, 1)
    """Height and width of the picture by which this was found."""

    @property
    def size(self) -> tuple[int, int] | None:
        """The only height and width that it accepts, LR pixels; None means any."""
        return self.rule.fixed

    @property
    def follows_contract(self) -> bool:
        """Whether input and output are those of this project's exports, but for their names."""
        types = (self.input_type, self.output_type) == ("float32", "float32")
        layouts = (self.input_layout, self.output_layout) == ("NCHW", "NCHW")
        colours = (self.channels, self.order, self.output_order) == (CHANNELS, "rgb", "rgb")
        peaks = (self.input_peak, self.output_peak) == (1, 1)
        free = (self.batch, self.rule) == (None, SizeRule())
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
