"""How much work a network is: the operations of an ONNX graph at a given input size."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agsr.errors import ModelError
from agsr.optional import require

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]


def count_flops(path: Path, shape: Shape) -> float:
    """Floating-point operations of a graph's convolutions and products.

    A multiplication and the addition behind it are two. Element-wise operators are left out, as is
    usual: they are few beside these.

    Args:
        path: ONNX file with one input.
        shape: The input's shape, ``(B, C, H, W)``.

    Raises:
        ModelError: The shape of some convolution can't be inferred.
        MissingDependencyError: onnx is not installed.
    """
    require("onnx", extra="bench", purpose="Counting a graph's operations")
    import onnx

    model = onnx.load(path)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    for dim, size in zip(dims, _as_declared(dims, shape), strict=True):
        dim.dim_value = size
    del model.graph.value_info[:]  # what the exporter noted for sizes of any number
    try:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        shapes = _shapes(inferred.graph)
        return float(sum(_OPERATIONS[n.op_type](n, shapes) for n in _counted(inferred.graph)))
    except onnx.shape_inference.InferenceError as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{path}: its shapes can't be inferred: {reason}") from None
    except KeyError as error:
        raise ModelError(f"{path}: the shape of {error} can't be inferred") from None


def _as_declared(dims: Any, shape: Shape) -> Shape:
    """The input's shape in the file's own layout: channels last, or one channel, if it says so."""
    batch, channels, height, width = shape
    if dims[3].dim_value in (1, channels) and dims[1].dim_value != channels:
        return batch, height, width, dims[3].dim_value
    return batch, dims[1].dim_value or channels, height, width


def _counted(graph: Any) -> list[Any]:
    return [node for node in graph.node if node.op_type in _OPERATIONS]


def _shapes(graph: Any) -> dict[str, Shape]:
    """Every shape that is known in full, by the tensor's name."""
    found = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for info in (*graph.input, *graph.value_info, *graph.output):
        dims = info.type.tensor_type.shape.dim
        if dims and all(dim.HasField("dim_value") for dim in dims):
            found[info.name] = tuple(dim.dim_value for dim in dims)
    return found


def _convolution(node: Any, shapes: Shapes) -> float:
    kernel = shapes[node.input[1]]  # (out, in / groups, kh, kw)
    return 2 * math.prod(shapes[node.output[0]]) * math.prod(kernel[1:])


def _transposed_convolution(node: Any, shapes: Shapes) -> float:
    kernel = shapes[node.input[1]]  # (in, out / groups, kh, kw)
    return 2 * math.prod(shapes[node.input[0]]) * math.prod(kernel[1:])


def _product(node: Any, shapes: Shapes) -> float:
    return 2 * math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]


def _gemm(node: Any, shapes: Shapes) -> float:
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return 2 * math.prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if transposed else -1]


_OPERATIONS: dict[str, Callable[[Any, Shapes], float]] = {
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "MatMul": _product,
    "Gemm": _gemm,
}
