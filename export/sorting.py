"""Sorting in a form that ONNX has: while a network is traced, its sorts become TopK of all values.

Neither exporter of torch can write ``torch.sort`` with its ``stable`` argument. TopK with as many
values as there are sorts alike, but runtimes order equal values differently, so whole numbers get
their position as lower digits: none are equal then. `agsr.export.community_trace` uses it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_SORTS = (torch.sort, Tensor.sort)
_ARGSORTS = (torch.argsort, Tensor.argsort)


class _SortMode(TorchFunctionMode):
    """Replaces sorts within the block by `sort`."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """See `torch.overrides.TorchFunctionMode`."""
        del types
        if func in _SORTS:
            return self.sort(*args, **(kwargs or {}))
        if func in _ARGSORTS:
            return self.sort(*args, **(kwargs or {}))[1]
        return func(*args, **(kwargs or {}))

    def sort(
        self, values: Tensor, dim: int = -1, descending: bool = False, stable: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return sorted values and where they were, as ``torch.sort`` does."""
        raise NotImplementedError


class SortByTopK(_SortMode):
    """Replaces sorts within the block; the results are those of a stable sort for whole numbers.

    >>> with SortByTopK():
    ...     torch.argsort(torch.tensor([2, 0, 2, 1])).tolist()
    [1, 3, 0, 2]
    """

    def sort(
        self, values: Tensor, dim: int = -1, descending: bool = False, stable: bool = False
    ) -> tuple[Tensor, Tensor]:
        """See ``torch.sort``."""
        del stable  # equal whole numbers are always in their order
        count, keys = values.shape[dim], values
        if not values.is_floating_point():
            at = torch.arange(count, device=values.device)
            shape = [1] * values.dim()
            shape[dim] = -1
            at = at.view(shape)
            keys = values * count + (count - 1 - at if descending else at)
        indices = torch.topk(keys, count, dim=dim, largest=descending, sorted=True)[1]
        return torch.gather(values, dim, indices), indices


class StableSort(_SortMode):
    """Makes sorts within the block stable, so that a network's results don't depend on the machine.

    torch orders equal values differently by processor. Networks that sort whole numbers, as ATD
    does, have no other result to compare a graph with.

    >>> with StableSort():
    ...     torch.argsort(torch.tensor([2, 0, 2, 1])).tolist()
    [1, 3, 0, 2]
    """

    def sort(
        self, values: Tensor, dim: int = -1, descending: bool = False, stable: bool = False
    ) -> tuple[Tensor, Tensor]:
        """See ``torch.sort``."""
        del stable
        found: tuple[Tensor, Tensor] = torch.sort(
            values, dim=dim, descending=descending, stable=True
        )
        return found
