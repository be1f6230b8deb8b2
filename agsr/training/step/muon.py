"""Batched Muon, used by `agsr.training.step.optimizer` for hidden convolutions.

Takes the same steps as `torch.optim.Muon` with ``adjust_lr_fn="match_rms_adamw"``, up to bfloat16
rounding. Matrices of one shape go through the Newton-Schulz iteration as one batch, which launches
a third of the kernels. The learning rate is a tensor, so that a CUDA graph can replay the step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.775, 2.0315)
"""Coefficients of the Newton-Schulz polynomial ``a x + b x³ + c x⁵``."""
ITERATIONS = 5
EPSILON = 1e-7
RMS = 0.2
"""Root mean square of a typical Adam step, as a share of its learning rate."""


@dataclass(frozen=True)
class _Group:
    """Matrices of one shape."""

    indices: Sequence[int]
    """Their indices in the list of all matrices."""
    momenta: Tensor
    """``(matrices, rows, columns)``."""


class Muon:
    """Steps matrices by their orthogonalized momentum, without weight decay.

    Args:
        matrices: ``(rows, columns)`` each; they are stepped in place.

    Attributes:
        momenta: One per matrix, views into the batches; write into them to restore a state.
    """

    def __init__(self, matrices: Sequence[Tensor]) -> None:
        self._matrices = matrices
        by_shape: dict[torch.Size, list[int]] = {}
        for index, matrix in enumerate(matrices):
            by_shape.setdefault(matrix.shape, []).append(index)
        self._groups = [
            _Group(indices, torch.stack([torch.zeros_like(matrices[i]) for i in indices]))
            for indices in by_shape.values()
        ]
        views = {i: m for g in self._groups for i, m in zip(g.indices, g.momenta, strict=True)}
        self.momenta = [views[index] for index in range(len(matrices))]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], rate: Tensor) -> None:
        """Step down the gradients.

        Args:
            gradients: One per matrix.
            rate: Learning rate on Adam's scale, a scalar on the matrices' device.
        """
        for group in self._groups:
            stacked = torch.stack([gradients[i] for i in group.indices])
            group.momenta.lerp_(stacked, 1 - MOMENTUM)
            steps = orthogonal(stacked.lerp_(group.momenta, MOMENTUM)).float()
            steps *= rate * (-RMS * math.sqrt(max(steps.shape[1:])))
            torch._foreach_add_([self._matrices[i] for i in group.indices], list(steps.unbind()))


def orthogonal(batch: Tensor) -> Tensor:
    """Orthogonalize matrices ``(B, rows, columns)`` approximately, in bfloat16.

    Singular vectors are preserved. Singular values end between about 0.7 and 1.2 instead of at 1,
    which makes no difference in training.
    """
    a, b, c = COEFFICIENTS
    tall = batch.shape[1] > batch.shape[2]
    x = batch.bfloat16()
    x = x.mT if tall else x
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp_(min=EPSILON)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
