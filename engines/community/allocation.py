"""Limit the memory of torch while another project's network is built from its file.

An architecture computes its layers' sizes from the shapes in the file; one large number among them
could ask for any amount of memory. Every operator that makes a new tensor is first run without
values (torch's meta device), so its result's size is known before it is allocated.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

from agsr.errors import ModelError

SPARE_BYTES = 512 << 20
"""Bytes that a network may allocate beside a multiple of its file's size while it is built."""

TIMES_FILE = 8
"""That multiple: a file of 2 bytes per value becomes 4, and some networks compute masks."""


_BY_VALUES = frozenset({"aten::bincount", "aten::repeat_interleave"})
"""Operators whose results a single value makes as large as it says; networks need none of them."""


@contextmanager
def limited_allocation(file_size: int, source: str) -> Iterator[None]:
    """Limit what this thread's tensors hold at one time to a multiple of a file's size.

    Args:
        file_size: Bytes.
        source: Name of the file, for messages.

    Raises:
        ModelError: More is asked for; it is not allocated.
    """
    with _Limit(file_size * TIMES_FILE + SPARE_BYTES, source):
        yield


class _Limit(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types for it
    """Adds up the storages of tensors that are alive, and rejects one that would be too many."""

    def __init__(self, most: int, source: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._most, self._source = most, source
        self._alive = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        kwargs = kwargs or {}
        if func is torch.ops.aten.resize_.default:
            self._reserve(_bytes(args[1], args[0].dtype))
        elif func._schema.name in _BY_VALUES:
            self._reserve(self._most + 1)
        elif any(returned.alias_info is None for returned in func._schema.returns):
            self._reserve(_result_bytes(func, args, kwargs))
        result = func(*args, **kwargs)
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor) and tensor.layout is torch.strided:
                self._count(tensor.untyped_storage())
        self._reserve(0)
        return result

    def _reserve(self, size: int) -> None:
        if self._alive + size > self._most:
            raise ModelError(
                f"{self._source}: its shapes ask for more than {TIMES_FILE} times the memory of "
                "the file; rejected as damaged"
            )

    def _count(self, storage: Any) -> None:
        address, size = storage._cdata, storage.nbytes() if storage.device.type != "meta" else 0
        if address not in self._sizes:
            weakref.finalize(storage, self._release, address)
        self._alive += size - self._sizes.get(address, 0)
        self._sizes[address] = size

    def _release(self, address: int) -> None:
        self._alive -= self._sizes.pop(address, 0)


def _bytes(shape: Any, dtype: torch.dtype) -> int:
    size = dtype.itemsize
    for side in shape:
        size *= int(side)
    return size


def _result_bytes(func: Any, args: Any, kwargs: dict[str, Any]) -> int:
    """Return the bytes of an operator's new tensors; 0 for one that decides them by values.

    Such an operator, like ``nonzero``, is counted after it ran.
    """
    given = {**kwargs, "device": torch.device("meta")} if "device" in kwargs else kwargs
    if not any(isinstance(value, Tensor) for value in tree_iter((args, kwargs))):
        given = {**kwargs, "device": torch.device("meta")}  # a factory, which has a device
    try:
        shown = func(*tree_map(_without_values, args), **tree_map(_without_values, given))
    except (NotImplementedError, RuntimeError, TypeError):
        return 0
    found = (value for value in tree_iter(shown) if isinstance(value, Tensor))
    return sum(value.untyped_storage().nbytes() for value in found)


def _without_values(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
