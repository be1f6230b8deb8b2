"""The module that is traced: a trained network with fixed step count and precision.

Everything about tracing is here and in `agsr.export.fused`, so that the model stays free of it.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from agsr.contract import Precision
from agsr.export.fused import FusedGenerator
from agsr.model.base import Network
from agsr.model.generator import Generator

_TYPES: dict[Precision, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16}


class UnrolledNetwork(nn.Module):
    """``lr`` → ``sr`` with a fixed number of steps; float32 outside, ``precision`` inside.

    Args:
        network: Trained network; changed in place.
        steps: Time steps to unroll.
        precision: ``"fp16"`` and ``"bf16"`` add one cast after ``lr`` and one before ``sr``, none
            in between. ``"int8"`` is float32 here; `agsr.export.quantize` converts it later.

    Attributes:
        exact: Names of the layers, beside the first and the last one, that stay float32 in int8.
    """

    def __init__(self, network: Network, steps: int, precision: Precision) -> None:
        super().__init__()
        self._inner = _TYPES.get(precision, torch.float32)
        chosen, self.exact = _rearranged(network, precision)
        self.network = chosen.to(self._inner).eval().requires_grad_(False)
        self.steps = steps

    @property
    def has_parts(self) -> bool:
        """Whether the loop can be traced step by step: `first`, `step`, `last`."""
        return isinstance(self.network, FusedGenerator)

    def first(self, lr: Tensor) -> tuple[Tensor, ...]:
        """See `FusedGenerator.first`; the input is float32."""
        return self._fused.first(lr.to(self._inner))

    def step(self, joined: Tensor, hidden: Tensor, attention: Tensor) -> tuple[Tensor, Tensor]:
        """See `agsr.export.fused.FusedStep.forward`."""
        return self._fused.step.forward(joined, hidden, attention)

    def last(self, *state: Tensor) -> Tensor:
        """See `FusedGenerator.last`; the output is float32."""
        return self._fused.last(*state).to(torch.float32)

    @property
    def _fused(self) -> FusedGenerator:
        return cast("FusedGenerator", self.network)

    def forward(self, lr: Tensor) -> Tensor:
        """``(B, 3, H, W)`` float32 → ``(B, 3, 4H, 4W)`` float32."""
        sr: Tensor = self.network(lr.to(self._inner), self.steps)
        return sr.to(torch.float32)


def _rearranged(network: Network, precision: Precision) -> tuple[nn.Module, tuple[str, ...]]:
    """Return a faster equivalent of the network, if there is one, and its exact layers."""
    if isinstance(network, Generator):
        exact = tuple(f"network.{layer}" for layer in FusedGenerator.EXACT)
        return FusedGenerator(network, separate_skips=precision == "int8"), exact
    return network, ()
