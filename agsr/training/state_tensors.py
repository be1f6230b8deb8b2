"""Tensors of a training state: checked before they are written, and read back into a run's own.

`agsr.training.trainer`, `agsr.training.step.optimized_module`, `agsr.training.step.optimizer` and
`agsr.training.objectives` restore themselves by `fill`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from agsr.errors import CheckpointError


@torch.no_grad()
def fill(own: Mapping[str, Tensor], found: Mapping[str, Tensor], prefix: str = "") -> None:
    """Copy tensors that were read from a file into those of a program, in place.

    Args:
        own: What is written to, by name.
        found: What a file holds; each name is a name of ``own`` behind ``prefix``.
        prefix: What the names of ``found`` begin with.

    Raises:
        CheckpointError: A tensor is missing, has another shape or holds no numbers like those of
            ``own``; nothing is copied then.
    """
    for name, value in own.items():
        other = found.get(prefix + name)
        if other is None:
            raise CheckpointError(f"'{prefix}{name}' is missing")
        if other.shape != value.shape:
            shapes = f"{tuple(other.shape)}, expected {tuple(value.shape)}"
            raise CheckpointError(f"'{prefix}{name}' has the shape {shapes}")
        if other.is_floating_point() != value.is_floating_point():
            raise CheckpointError(f"'{prefix}{name}' is {other.dtype}, expected {value.dtype}")
    for name, value in own.items():
        value.copy_(found[prefix + name])


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all values are finite; waits for the device once."""
    return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())
