"""The generator's layers rearranged for inference: the same function at lower cost.

`agsr.assembly.generator_graph` connects them; docs/performance.md describes the changes and their
gains. Layers have the names of the trained network behind ``network.``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from agsr.assembly.config import GREY, GeneratorConfig
from agsr.contract import CHANNELS, SCALE

Layers = dict[str, NDArray[np.float32]]
"""Weights and biases by name."""

BLOCK = 16
"""Channels that CPU runtimes store side by side: multiples of it need no padding and, in ONNX
Runtime, no reordering."""

_TAPS = 9
_PIXELS = CHANNELS * _TAPS
_PIXEL_CHANNELS = -(-(_PIXELS + 1) // BLOCK) * BLOCK


def lanes(config: GeneratorConfig) -> int:
    """Return how often the map is computed; it is repeated to the width of the features."""
    return math.gcd(config.width, BLOCK)


def fuse(trained: Mapping[str, NDArray[np.float32]], config: GeneratorConfig) -> Layers:
    """Return the layers of the fast graph, float32.

    Args:
        trained: State dict of the trained network.
        config: Its shape.
    """
    layers = {
        f"network.{name}": value
        for name, value in trained.items()
        if name.startswith(("mapping.", "step.blocks.")) and ".fusion." not in name
    }
    layers |= _pixels() | _shallow(trained) | _join(trained) | _gru(trained)
    for index in range(config.dense_blocks):
        layers |= _fusion(trained, f"step.blocks.{index}.fusion", config)
    layers |= _attention(trained, lanes(config))
    layers["network.upsample.weight"] = trained["upsample.weight"]
    # The bias of upsample adds the GREY that was subtracted from the pixels.
    layers["network.upsample.bias"] = trained["upsample.bias"] + np.float32(GREY)
    layers["network.repeat.weight"] = _repeated_pixels()
    return layers


def _pixels() -> Layers:
    """Return a convolution to each pixel's 3x3 neighbours as channels, one of ones, and zeros."""
    weight = np.zeros((_PIXEL_CHANNELS, _PIXELS), np.float32)
    weight[:_PIXELS] = np.eye(_PIXELS)
    bias = np.zeros(_PIXEL_CHANNELS, np.float32)
    bias[_PIXELS] = 1
    return {
        "network.pixels.weight": weight.reshape(_PIXEL_CHANNELS, CHANNELS, 3, 3),
        "network.pixels.bias": bias,
    }


def _shallow(trained: Mapping[str, NDArray[np.float32]]) -> Layers:
    """Merge the two shallow convolutions, with nothing between them, into one over the pixels.

    The channel of ones carries the first one's bias, so the image border is handled as before.
    """
    first, second = trained["shallow1.weight"], trained["shallow2.weight"].astype(np.float64)
    inner = np.concatenate([first.reshape(len(first), -1), trained["shallow1.bias"][:, None]], 1)
    product = np.zeros((len(second), _PIXEL_CHANNELS, 3, 3))
    for channel, row in enumerate(inner.astype(np.float64)):  # a fixed order of sums, on any BLAS
        product[:, : len(row)] += second[:, channel, None] * row[:, None, None]
    return {
        "network.shallow.weight": product.astype(np.float32),
        "network.shallow.bias": trained["shallow2.bias"],
    }


def _join(trained: Mapping[str, NDArray[np.float32]]) -> Layers:
    """Split the join of features and map.

    The map ``A`` is a scalar per pixel and ``join`` is 1x1, so the join of ``F_t = F_0 + A ∘ h`` is
    ``join(F_0) + A ∘ join(h)``, the first of which is the same in all steps.
    """
    weight, bias = trained["step.join.weight"], trained["step.join.bias"]
    of_map = weight[:, -1, 0, 0]
    return {
        "network.step.join": weight[:, :-1],
        "network.step.join_shallow": bias,
        "network.step.join_hidden": of_map,
        "network.step.join_first": bias + np.float32(GREY) * of_map,
    }


def _fusion(
    trained: Mapping[str, NDArray[np.float32]], name: str, config: GeneratorConfig
) -> Layers:
    """Split a block's fusion: nothing is concatenated after the last dense layer."""
    weight = trained[f"{name}.weight"]
    known = weight.shape[1] - config.growth
    return {
        f"network.{name}.weight": weight[:, :known],
        f"network.{name}.bias": trained[f"{name}.bias"],
        f"network.{name}_last.weight": weight[:, known:],
    }


def fold_skips(layers: Layers, config: GeneratorConfig) -> None:
    """Fold the dense blocks' skips into the weights of their fusions; changes ``layers``.

    int8 adds the skips instead: a one among the weights of a channel would use up the range of all
    others.
    """
    for index in range(config.dense_blocks):
        name = f"network.step.blocks.{index}.fusion.weight"
        weight = layers[name].copy()
        weight[:, : config.width, 0, 0] += np.eye(config.width, dtype=np.float32)
        layers[name] = weight


def _gru(trained: Mapping[str, NDArray[np.float32]]) -> Layers:
    """Return one convolution per gate and source, so that nothing is split or joined."""
    candidate, gates = trained["step.gru.candidate.weight"], trained["step.gru.gates.weight"]
    width = len(candidate)
    bias = trained["step.gru.gates.bias"]
    parts = {
        "update": (gates[:width], bias[:width]),
        "reset": (gates[width:], bias[width:]),
        "candidate": (candidate, trained["step.gru.candidate.bias"]),
    }
    # ONNX Runtime multiplies by a number per channel in its blocked layout, but not by -1.
    layers: Layers = {"network.step.gru.minus": -np.ones((width, 1, 1), np.float32)}
    for name, (weight, part_bias) in parts.items():
        layers[f"network.step.gru.{name}.of_hidden.weight"] = weight[:, :width]
        layers[f"network.step.gru.{name}.of_input.weight"] = weight[:, width:]
        layers[f"network.step.gru.{name}.of_input.bias"] = part_bias
    return layers


def _attention(trained: Mapping[str, NDArray[np.float32]], copies: int) -> Layers:
    """Return two convolutions that compute the map.

    One output channel of a 3x3 convolution would cost as much as `BLOCK`; so a 1x1 convolution
    computes the nine products, one channel each, and a fixed one adds them at their positions.
    """
    weight = trained["step.attend.weight"]
    products = np.zeros((BLOCK, weight.shape[1], 1, 1), np.float32)
    products[:_TAPS, :, 0, 0] = weight[0].reshape(-1, _TAPS).T
    places = np.zeros((copies, BLOCK, 3, 3), np.float32)
    places[:, :_TAPS] = np.eye(_TAPS).reshape(_TAPS, 3, 3)
    return {
        "network.step.attend.products.weight": products,
        "network.step.attend.places.weight": places,
        "network.step.attend.places.bias": np.repeat(trained["step.attend.bias"], copies),
    }


def _repeated_pixels() -> NDArray[np.float32]:
    """Return weights that copy each pixel once per output pixel of its colour."""
    centres = np.arange(CHANNELS) * _TAPS + _TAPS // 2
    weight = np.zeros((CHANNELS * SCALE**2, _PIXEL_CHANNELS, 1, 1), np.float32)
    weight[np.arange(len(weight)), np.repeat(centres, SCALE**2)] = 1
    return weight
