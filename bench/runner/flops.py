"""FLOP counts: floating-point operations of an ONNX graph at a given input size."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from agsr.bench.runner.entries import Entry
from agsr.bench.runner.plan import Workload
from agsr.errors import AgsrError, ModelError
from agsr.pretrained import find_onnx
from agsr.system.optional_import import require

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]


def count_flops(path: Path, shape: Shape) -> float:
    """Count the floating-point operations of a graph's convolutions and matrix products.

    A multiply-add counts as two. Element-wise operators are excluded, as is usual: they add little.

    Args:
        path: ONNX file with one input.
        shape: The input's shape, ``(B, C, H, W)``.

    Raises:
        ModelError: The file is not an ONNX graph, rejects this shape, or contains what can't be
            counted: a data-dependent shape, a loop or a recurrent operator.
        MissingDependencyError: onnx is not installed.
    """
    require("onnx", extra="bench", purpose="Counting FLOPs")
    graph = _inferred(_load(path), path, shape)
    shapes = _shapes(graph)
    _check(graph, path)
    try:
        counts = [_OPERATIONS[n.op_type](n, shapes) for n in graph.node if n.op_type in _OPERATIONS]
    except KeyError as error:
        raise ModelError(f"{path}: the shape of {error} can't be inferred") from None
    return float(sum(counts))


class FlopCounter:
    """Counts FLOPs of entries, once per graph and size.

    Attributes:
        notes: Why some couldn't be counted, each reason once.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._count = cache(count_flops)

    def count(self, entry: Entry, workload: Workload) -> float | None:
        """Return the floating-point operations of a workload; None if they can't be counted."""
        if not entry.is_network:
            return None
        try:
            path = find_onnx(entry.weights, entry.steps)
            return sum(self._count(path, lr.shape) for lr in workload.batches)
        except AgsrError as error:
            self._add_note(f"FLOPs not counted: {error}")
            return None

    def _add_note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def _load(path: Path) -> Any:
    """Load the model without external weight files: only shapes are needed."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.load(path, load_external_data=False)
    except (OSError, DecodeError) as error:
        raise ModelError(f"{path}: not an ONNX file: {error}") from None


def _inferred(model: Any, path: Path, shape: Shape) -> Any:
    """Return the graph with every shape that follows from the input's."""
    import onnx
    from onnx import inliner

    _fix_input(model.graph, path, shape)
    del model.graph.value_info[:]  # the exporter's symbolic shapes
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    flat = inliner.inline_local_functions(model)
    try:
        return onnx.shape_inference.infer_shapes(flat, strict_mode=True, data_prop=True).graph
    except onnx.shape_inference.InferenceError as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{path}: shape inference failed: {reason}") from None


def _fix_input(graph: Any, path: Path, shape: Shape) -> None:
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [found for found in graph.input if found.name not in weights]
    dims = _dims(inputs[0]) if len(inputs) == 1 else []
    given = _as_declared(dims, shape) if len(dims) == len(shape) == 4 else ()
    if not given or any(dim.dim_value not in (0, x) for dim, x in zip(dims, given, strict=True)):
        found = [[dim.dim_value or dim.dim_param for dim in _dims(each)] for each in inputs]
        raise ModelError(f"{path}: its inputs are {found}; expected one that accepts {list(shape)}")
    for dim, size in zip(dims, given, strict=True):
        dim.dim_value = size


def _as_declared(dims: Any, shape: Shape) -> Shape:
    """Return the shape in the layout that the file declares: channels last, or one channel."""
    batch, channels, height, width = shape
    if dims[3].dim_value in (1, channels) and dims[1].dim_value != channels:
        return batch, height, width, dims[3].dim_value
    return batch, dims[1].dim_value or channels, height, width


def _dims(info: Any) -> Any:
    return info.type.tensor_type.shape.dim


def _check(graph: Any, path: Path) -> None:
    """Raise if uncounted operators may do most of the work: no figure beats a wrong one."""
    unknown = sorted({node.op_type for node in graph.node} & _UNCOUNTED)
    if unknown:
        raise ModelError(f"{path}: operations of {', '.join(unknown)} can't be counted")


def _shapes(graph: Any) -> dict[str, Shape]:
    """Return every fully known shape by tensor name."""
    found = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for info in (*graph.input, *graph.value_info, *graph.output):
        known = info.type.tensor_type.HasField("shape")
        if known and all(dim.HasField("dim_value") for dim in _dims(info)):
            found[info.name] = tuple(dim.dim_value for dim in _dims(info))
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

_UNCOUNTED = frozenset(
    (
        *("If", "Loop", "Scan", "GRU", "LSTM", "RNN", "Einsum", "Attention", "DeformConv"),
        *("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul", "FusedConv"),
    )
)
"""Operators that multiply too, but are missing from `_OPERATIONS`."""
