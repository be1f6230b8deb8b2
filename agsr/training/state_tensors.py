"""Tensors of a training state: checked before they are written, and restored in place.

`agsr.training.trainer`, `agsr.training.step.optimized_module`, `agsr.training.step.optimizer` and
`agsr.training.objectives` restore their tensors with `fill`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from agsr.errors import CheckpointError


@torch.no_grad()
def fill(own: Mapping[str, Tensor], found: Mapping[str, Tensor], prefix: str = "") -> None:
    """Copy tensors read from a file into existing ones, in place.

    Args:
        own: Destination tensors by name.
        found: Tensors of the file; their names are those of ``own`` after ``prefix``.
        prefix: Prefix of the names in ``found``.

    Raises:
        CheckpointError: A tensor is missing, or has another shape or kind of type; nothing is
            copied then.

    >>> value = torch.zeros(2)
    >>> fill({"w": value}, {"model.w": torch.ones(2)}, "model.")
    >>> value
    tensor([1., 1.])
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
    """Return True if all values are finite; synchronizes with the device once."""
    return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())
