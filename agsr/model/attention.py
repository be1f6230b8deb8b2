"""One time step of the attentive recurrent network (paper, section on the generator, eq. 3-7).

A step refines the features and the attention map of the previous step in three residual dense
blocks, updates the hidden state in a convolutional GRU and emits a new attention map. The same
step, with the same weights, runs ``n`` times; the loop is in `agsr.model.generator`.

Shape suffixes: B batch, C feature width, H and W low-resolution height and width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agsr.assembly.config import LEAK


class ResidualDenseBlock(nn.Module):
    """Densely connected 3x3 convolutions, 1x1 local fusion and a local skip; no batch norm.

    Args:
        width: Channels C in and out.
        growth: Channels each dense layer adds.
        layers: Number of dense layers.
    """

    def __init__(self, width: int, growth: int, layers: int) -> None:
        super().__init__()
        self.dense = nn.ModuleList(
            nn.Conv2d(width + i * growth, growth, 3, padding=1) for i in range(layers)
        )
        self.fusion = nn.Conv2d(width + layers * growth, width, 1)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        """Refine ``(B, C, H, W)`` features; the shape is unchanged."""
        known = features_BCHW
        for layer in self.dense:
            known = torch.cat([known, F.leaky_relu(layer(known), LEAK)], dim=1)
        refined: Tensor = features_BCHW + self.fusion(known)
        return refined


class ConvGRU(nn.Module):
    """Convolutional gated recurrent unit (eq. 3-6); both gates come from one convolution.

    Args:
        width: Channels C of the hidden state and of the input.
        kernel: Odd kernel size of the gates; with 1, only the dense blocks mix pixels.
    """

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(2 * width, 2 * width, kernel, padding=kernel // 2)
        self.candidate = nn.Conv2d(2 * width, width, kernel, padding=kernel // 2)

    def forward(self, hidden_BCHW: Tensor, input_BCHW: Tensor) -> Tensor:
        """Update ``h_{t-1}`` with ``x_t`` to ``h_t``, all ``(B, C, H, W)``."""
        gates = torch.sigmoid(self.gates(torch.cat([hidden_BCHW, input_BCHW], dim=1)))  # eq. 3, 4
        update, reset = gates.chunk(2, dim=1)
        candidate = torch.tanh(  # eq. 5
            self.candidate(torch.cat([reset * hidden_BCHW, input_BCHW], dim=1))
        )
        return (1 - update) * hidden_BCHW + update * candidate  # eq. 6


class AttentiveStep(nn.Module):
    """Three residual dense blocks, a convolutional GRU and the attention convolution.

    Args:
        width: Feature channels C.
        growth: Channels each dense layer adds.
        layers: Dense layers per block.
        blocks: Residual dense blocks per step (the paper has three).
        gru_kernel: Kernel size of the GRU's gates.
    """

    def __init__(self, width: int, growth: int, layers: int, blocks: int, gru_kernel: int) -> None:
        super().__init__()
        self.join = nn.Conv2d(width + 1, width, 1)
        self.blocks = nn.Sequential(
            *(ResidualDenseBlock(width, growth, layers) for _ in range(blocks))
        )
        self.gru = ConvGRU(width, gru_kernel)
        self.attend = nn.Conv2d(width, 1, 3, padding=1)

    def forward(
        self, features_BCHW: Tensor, attention_B1HW: Tensor, hidden_BCHW: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Run one step.

        Args:
            features_BCHW: ``F_{t-1}``.
            attention_B1HW: ``A_{t-1}``, in [0, 1].
            hidden_BCHW: ``h_{t-1}``.

        Returns:
            ``(h_t, A_t)``, of shapes ``(B, C, H, W)`` and ``(B, 1, H, W)``.
        """
        joined = self.join(torch.cat([features_BCHW, attention_B1HW], dim=1))
        hidden = self.gru(hidden_BCHW, self.blocks(joined))
        return hidden, torch.sigmoid(self.attend(hidden))
