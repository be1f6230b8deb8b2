"""Constants of ONNX graphs as numpy arrays, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agsr.contract import Precision

_TYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype(np.float32),
    2: np.dtype(np.uint8),
    3: np.dtype(np.int8),
    10: np.dtype(np.float16),
}
"""``TensorProto.DataType`` of the types that numpy has, too."""

_NUMBERS = {dtype: number for number, dtype in _TYPES.items()}

FLOAT_TYPES: dict[Precision, int] = {"fp32": 1, "fp16": 10, "bf16": 16, "int8": 1}
"""``TensorProto.DataType`` of the values that a graph computes with, by its precision."""


def to_array(tensor: Any) -> NDArray[Any]:
    """Return the values of a constant.

    Raises:
        ValueError: Its type isn't fp32, fp16, int8 or uint8.
    """
    if tensor.data_type not in _TYPES:
        raise ValueError(f"{tensor.name}: data type {tensor.data_type}")
    dtype = _TYPES[tensor.data_type]
    if tensor.raw_data:
        values = np.frombuffer(tensor.raw_data, dtype.newbyteorder("<")).astype(dtype, copy=False)
    else:
        values = np.array(tensor.float_data, dtype)
    return values.reshape(tuple(tensor.dims))


def set_array(tensor: Any, name: str, values: NDArray[Any]) -> None:
    """Replace a constant."""
    tensor.Clear()
    tensor.name = name
    tensor.data_type = _NUMBERS[values.dtype]
    tensor.dims.extend(values.shape)
    tensor.raw_data = values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()


def set_rounded(tensor: Any, name: str, values: NDArray[np.float32], precision: Precision) -> None:
    """Replace a constant by values in the precision of a graph, rounded to nearest even."""
    if precision == "bf16":
        bits = values.view(np.uint32).astype(np.uint64)
        halves = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")
        tensor.Clear()
        tensor.name, tensor.data_type = name, FLOAT_TYPES["bf16"]
        tensor.dims.extend(values.shape)
        tensor.raw_data = halves.tobytes()
        return
    with np.errstate(over="ignore"):  # infinity, which the comparison with torch rejects
        rounded = values.astype(_TYPES[FLOAT_TYPES[precision]])
    set_array(tensor, name, rounded)
