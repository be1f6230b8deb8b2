"""Measure how much memory a network needs per pixel, from the tensors alive while it runs.

It is used for small pictures and on GPUs. Before a large picture on a CPU,
`agsr.engines.community.tile_memory` measures what the runtime really needs.
"""

from __future__ import annotations

import warnings
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from agsr.contract import CHANNELS, SizeRule

_SIDE = 64
"""Side of the picture that is measured, LR pixels: a multiple of most networks' windows, to which
they pad it."""

_SCRATCH = 1.5
"""Factor for what operators allocate inside themselves, which can't be seen here."""


def bytes_per_pixel(network: nn.Module, sizes: SizeRule, device: torch.device) -> int:
    """Return the bytes of working memory per LR pixel of an input.

    Args:
        network: ``(1, 3, H, W)`` → ``(1, 3, sH, sW)``.
        sizes: Sizes that it accepts.
        device: Where it is.
    """
    height, width = sizes.padded(_SIDE, _SIDE)
    lr = torch.zeros(1, CHANNELS, height, width, device=device)
    meter = _Meter()
    with warnings.catch_warnings(), torch.no_grad(), meter:
        warnings.simplefilter("ignore")  # torch's, about how the network computes
        network(lr)
    return max(1, int(meter.peak * _SCRATCH / (height * width)))


class _Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types for it
    """Adds up the tensors that operators return, for as long as each is alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = self._alive = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: Any) -> None:
        address, size = storage._cdata, storage.nbytes()
        if address in self._seen:
            return
        self._seen.add(address)
        self._alive += size
        self.peak = max(self.peak, self._alive)
        weakref.finalize(storage, self._release, address, size)

    def _release(self, address: int, size: int) -> None:
        self._seen.discard(address)
        self._alive -= size
