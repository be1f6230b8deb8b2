"""The generator rearranged for inference: the same function of the same weights at lower cost.

`agsr.export.unrolled` traces this instead of the trained `Generator`. docs/performance.md describes
the changes and their gains; they apply to any `GeneratorConfig`.

Shape suffixes: B batch, C feature width, L lanes, H and W low-resolution height and width.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agsr.contract import CHANNELS, SCALE
from agsr.model.attention import LEAK, AttentiveStep, ConvGRU, ResidualDenseBlock
from agsr.model.generator import GREY, Generator

BLOCK = 16
"""Channels that CPU runtimes store side by side: multiples of it need no padding and, in ONNX
Runtime, no reordering."""

_TAPS = 9
_PIXELS = CHANNELS * _TAPS


class FusedGenerator(nn.Module):
    """``(B, 3, H, W)`` → ``(B, 3, 4H, 4W)``, equal to a `Generator` but for rounding.

    Args:
        generator: Trained network, float32; not changed, but shares weights with this one.
        separate_skips: Don't fold the dense blocks' skips into their weights. For int8: a one among
            the weights of a channel would use up the range of all others.
    """

    EXACT = ("shallow", "step.attend", "upsample")
    """Layers, beside the first and the last one, that lose most by int8: half of the loss, in a
    tenth of the work."""

    def __init__(self, generator: Generator, *, separate_skips: bool = False) -> None:
        super().__init__()
        self.pixels = _PixelTaps()
        self.shallow = _shallow(generator)
        self.step = FusedStep(generator.step, separate_skips=separate_skips)
        self.mapping = generator.mapping
        upsample = generator.upsample
        self.upsample = _convolution(upsample.weight, cast("Tensor", upsample.bias) + GREY)
        self.repeat = _convolution(_repeated_pixels())

    def forward(self, lr_B3HW: Tensor, steps: int) -> Tensor:
        """See `agsr.model.base.Network.forward`."""
        pixels, shallow, joined, hidden, attention = self.first(lr_B3HW)
        for _ in range(1, steps):
            hidden, attention = self.step(joined, hidden, attention)
        return self.last(pixels, shallow, hidden, attention)

    def first(self, lr_B3HW: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return pixels, ``F_0`` and its join, which all steps read, then ``h_1`` and ``A_1``."""
        pixels = self.pixels(lr_B3HW - GREY)
        shallow = self.shallow(pixels)
        return (pixels, shallow, self.step.joined(shallow), *self.step.first(shallow))

    def last(
        self, pixels_B32HW: Tensor, shallow_BCHW: Tensor, hidden_BCHW: Tensor, map_BCHW: Tensor
    ) -> Tensor:
        """Reconstruct the SR image from ``h_t`` and ``A_t`` of the last step."""
        features = shallow_BCHW + map_BCHW * hidden_BCHW
        refined = features + self.mapping(features)
        # The bias of upsample adds the GREY that was subtracted from the pixels.
        return F.pixel_shuffle(self.upsample(refined) + self.repeat(pixels_B32HW), SCALE)


class FusedStep(nn.Module):
    """An `AttentiveStep` in which every tensor has whole blocks of channels.

    The map ``A`` is a scalar per pixel and ``join`` is 1x1, so the join of ``F_t = F_0 + A ∘ h`` is
    ``join(F_0) + A ∘ join(h)``, the first of which is the same in all steps. The map is
    computed `BLOCK` times and repeated to C channels, which costs less than broadcasting one.

    Args:
        step: Trained step.
        separate_skips: See `FusedGenerator`.
    """

    def __init__(self, step: AttentiveStep, *, separate_skips: bool = False) -> None:
        super().__init__()
        weight, bias = step.join.weight, cast("Tensor", step.join.bias)
        of_features, of_map = weight[:, :-1], weight[:, -1, 0, 0]
        self.join = nn.Parameter(of_features.detach())
        self.join_shallow = nn.Parameter(bias.detach())
        self.join_hidden = nn.Parameter(of_map.detach())
        self.join_first = nn.Parameter((bias + GREY * of_map).detach())
        self.blocks = nn.Sequential(
            *(
                FusedBlock(cast("ResidualDenseBlock", block), separate_skip=separate_skips)
                for block in step.blocks
            )
        )
        self.gru = FusedGRU(step.gru)
        self.attend = _Attention(step.attend)

    def joined(self, shallow_BCHW: Tensor) -> Tensor:
        """Return the join of ``F_0``, the same in all steps after the first."""
        return F.conv2d(shallow_BCHW, self.join, self.join_shallow)

    def first(self, shallow_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """``F_0`` → ``h_1``, ``A_1``, each ``(B, C, H, W)``; ``A_0`` and ``h_0`` are constants."""
        hidden = self.gru(self.blocks(F.conv2d(shallow_BCHW, self.join, self.join_first)))
        return hidden, self.attend(hidden)

    def forward(
        self, joined_BCHW: Tensor, hidden_BCHW: Tensor, map_BCHW: Tensor
    ) -> tuple[Tensor, Tensor]:
        """``h_{t-1}``, ``A_{t-1}`` → ``h_t``, ``A_t``, each ``(B, C, H, W)``."""
        again = joined_BCHW + map_BCHW * F.conv2d(hidden_BCHW, self.join, self.join_hidden)
        hidden = self.gru(self.blocks(again), hidden_BCHW)
        return hidden, self.attend(hidden)


class FusedBlock(nn.Module):
    """A `ResidualDenseBlock` whose skip is folded into the weights of its fusion.

    Nothing is concatenated after the last dense layer: the fusion is the sum of two convolutions.

    Args:
        block: Trained block.
        separate_skip: Add the skip instead.
    """

    def __init__(self, block: ResidualDenseBlock, *, separate_skip: bool = False) -> None:
        super().__init__()
        self.dense = block.dense
        self.separate_skip = separate_skip
        weight = block.fusion.weight.detach().clone()
        if not separate_skip:
            weight[:, : len(weight), 0, 0] += torch.eye(len(weight))
        known = weight.shape[1] - cast("nn.Conv2d", block.dense[-1]).out_channels
        self.fusion = _convolution(weight[:, :known], block.fusion.bias)
        self.fusion_last = _convolution(weight[:, known:])

    def forward(self, features_BCHW: Tensor) -> Tensor:
        """Refine ``(B, C, H, W)`` features; the shape stays."""
        known = features_BCHW
        for layer in self.dense[:-1]:
            known = torch.cat([known, F.leaky_relu(layer(known), LEAK)], dim=1)
        last = F.leaky_relu(self.dense[-1](known), LEAK)
        fused = self.fusion(known)
        if self.separate_skip:
            fused = features_BCHW + fused
        return cast("Tensor", fused + self.fusion_last(last))


class FusedGRU(nn.Module):
    """A `ConvGRU` with one convolution per gate and source, so that nothing is split or joined.

    Args:
        gru: Trained unit.
    """

    def __init__(self, gru: ConvGRU) -> None:
        super().__init__()
        width = gru.candidate.weight.shape[0]
        gates, bias = gru.gates.weight, cast("Tensor", gru.gates.bias)
        self.update = _TwoSources(gates[:width], bias[:width])
        self.reset = _TwoSources(gates[width:], bias[width:])
        self.candidate = _TwoSources(gru.candidate.weight, gru.candidate.bias)
        # ONNX Runtime multiplies by a number per channel in its blocked layout, but not by -1.
        self.register_buffer("minus", -torch.ones(width, 1, 1))

    def forward(self, input_BCHW: Tensor, hidden_BCHW: Tensor | None = None) -> Tensor:
        """``x_t``, ``h_{t-1}`` → ``h_t``; ``h_{t-1}`` defaults to zero."""
        update = torch.sigmoid(self.update(input_BCHW, hidden_BCHW))
        if hidden_BCHW is None:
            return update * torch.tanh(self.candidate(input_BCHW))
        reset = torch.sigmoid(self.reset(input_BCHW, hidden_BCHW))
        candidate = torch.tanh(self.candidate(input_BCHW, reset * hidden_BCHW))
        return hidden_BCHW + update * (candidate + hidden_BCHW * self.get_buffer("minus"))


class _TwoSources(nn.Module):
    """A convolution over ``concat(hidden, input)`` as the sum of one over each."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        width = weight.shape[1] // 2
        self.of_hidden = _convolution(weight[:, :width])
        self.of_input = _convolution(weight[:, width:], bias)

    def forward(self, input_BCHW: Tensor, hidden_BCHW: Tensor | None = None) -> Tensor:
        summed: Tensor = self.of_input(input_BCHW)
        return summed if hidden_BCHW is None else summed + self.of_hidden(hidden_BCHW)


class _Attention(nn.Module):
    """The convolution that outputs the map, repeated to all channels.

    One output channel of a 3x3 convolution would cost as much as `BLOCK`; so a 1x1 convolution
    computes the nine products, one channel each, and a fixed one adds them at their positions.
    """

    def __init__(self, attend: nn.Conv2d) -> None:
        super().__init__()
        width = attend.weight.shape[1]
        lanes = math.gcd(width, BLOCK)
        products = torch.zeros(BLOCK, width, 1, 1)
        products[:_TAPS, :, 0, 0] = attend.weight.detach()[0].flatten(1).T
        places = torch.zeros(lanes, BLOCK, 3, 3)
        places[:, :_TAPS] = torch.eye(_TAPS).reshape(_TAPS, 3, 3)
        self.products = _convolution(products)
        self.places = _convolution(places, cast("Tensor", attend.bias).repeat(lanes))
        self.copies = width // lanes

    def forward(self, hidden_BCHW: Tensor) -> Tensor:
        """``h_t`` → ``A_t``, ``(B, C, H, W)``, the same in all channels."""
        map_BLHW = torch.sigmoid(self.places(self.products(hidden_BCHW)))
        return torch.cat([map_BLHW] * self.copies, dim=1)


class _PixelTaps(nn.Conv2d):
    """Each pixel's 3x3 neighbours as channels, then a channel of ones, then zeros up to a block."""

    def __init__(self) -> None:
        super().__init__(CHANNELS, -(-(_PIXELS + 1) // BLOCK) * BLOCK, 3, padding=1)
        with torch.no_grad():
            self.weight.zero_()
            self.weight.view(-1, _PIXELS)[:_PIXELS] = torch.eye(_PIXELS)
            cast("Tensor", self.bias).zero_()[_PIXELS] = 1


def _shallow(generator: Generator) -> nn.Conv2d:
    """Merge the two shallow convolutions, with nothing between them, into one over `_PixelTaps`.

    The channel of ones carries the first one's bias, so the image border is handled as before.
    """
    first, second = generator.shallow1, generator.shallow2
    inner = torch.cat([first.weight.flatten(1), cast("Tensor", first.bias)[:, None]], dim=1)
    product = torch.einsum("ocyx,ci->oiyx", second.weight.double(), inner.double())
    padding = _PixelTaps().weight.shape[0] - product.shape[1]
    return _convolution(F.pad(product, (0, 0, 0, 0, 0, padding)).float(), second.bias)


def _repeated_pixels() -> Tensor:
    """Return weights that copy each pixel from `_PixelTaps` once per output pixel of its colour."""
    centres = torch.arange(CHANNELS) * _TAPS + _TAPS // 2
    weight = torch.zeros(CHANNELS * SCALE**2, _PixelTaps().weight.shape[0], 1, 1)
    weight[torch.arange(len(weight)), centres.repeat_interleave(SCALE**2)] = 1
    return weight


def _convolution(weight: Tensor, bias: Tensor | None = None) -> nn.Conv2d:
    """Make a convolution with these values that preserves height and width."""
    out, into, kernel, _ = weight.shape
    layer = nn.Conv2d(into, out, kernel, padding=kernel // 2, bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            cast("Tensor", layer.bias).copy_(bias)
    return layer
