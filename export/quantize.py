"""fp32 graph → int8 graph with explicit Q/DQ pairs, laid out for OpenVINO on CPUs.

Convolutions have 8-bit values and int8 weights, both symmetric: values are unsigned around 128,
which is what CPUs multiply. OpenVINO loses 1 dB with signed values, but TensorRT accepts only them,
so `agsr.engines.tensorrt.signed_int8` converts them. Biases, sums and the GRU's products stay
float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from agsr.contract import INT8_ZERO
from agsr.datasets.pairs import Pair
from agsr.export.calibration import magnitudes

LARGEST = 127
"""The largest magnitude of an 8-bit value."""

_ZERO_NAME = "zero_point"


def quantize(model: onnx.ModelProto, photos: Sequence[Pair], exact: Sequence[str] = ()) -> None:
    """Quantize the convolutions of a graph.

    Args:
        model: Traced fp32 graph; changed in place.
        photos: Photographs that set the ranges of values.
        exact: Prefixes of weights' names: these convolutions stay float32, as do the first and the
            last one.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
    """
    graph = model.graph
    chosen = [n for n in quantizable(graph) if not n.input[1].startswith(tuple(exact))]
    joins = _joins(graph, chosen)
    values = _values(chosen, joins)
    largest = _join_magnitudes(magnitudes(model, values, photos), joins)
    nodes = _quantize_weights(graph, chosen)
    nodes += _quantize_values(graph, [*chosen, *joins.values()], largest)
    del graph.node[:], graph.value_info[:]  # shapes of tensors that no longer exist
    graph.node.extend(nodes)


def quantizable(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the convolutions but the first and the last one, of computed values with constants."""
    constants = {constant.name for constant in graph.initializer}
    computed = {name for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"][1:-1]
    return [n for n in convolutions if n.input[0] in computed and n.input[1] in constants]


def _joins(
    graph: onnx.GraphProto, convolutions: Sequence[onnx.NodeProto]
) -> dict[str, onnx.NodeProto]:
    """Find concatenations that only these convolutions read, by their outputs.

    Their inputs are quantized instead, with one scale, so that joining them only copies bytes.
    """
    quantized = {node.name for node in convolutions}
    joins: dict[str, onnx.NodeProto] = {}
    for node in reversed(graph.node):  # readers come after the join
        readers = {other.name for other in graph.node if node.output[0] in other.input}
        if node.op_type == "Concat" and readers and readers <= quantized:
            quantized.add(node.name)
            joins[node.output[0]] = node
    return joins


def _values(
    convolutions: Sequence[onnx.NodeProto], joins: Mapping[str, onnx.NodeProto]
) -> list[str]:
    """List the tensors to quantize: inputs of the convolutions and of their joins."""
    read = [node.input[0] for node in convolutions]
    read += [name for join in joins.values() for name in join.input]
    return list(dict.fromkeys(name for name in read if name not in joins))


def _join_magnitudes(
    largest: Mapping[str, float], joins: Mapping[str, onnx.NodeProto]
) -> dict[str, float]:
    """Give joined tensors the same magnitude, also through joins of joins."""
    of = {**largest, **dict.fromkeys(joins, 0.0)}
    before: dict[str, float] = {}
    while of != before:
        before = dict(of)
        for name, join in joins.items():
            most = max(of[part] for part in (name, *join.input))
            of.update(dict.fromkeys((name, *join.input), most))
    return {name: of[name] for name in largest}


def _quantize_weights(
    graph: onnx.GraphProto, convolutions: Sequence[onnx.NodeProto]
) -> list[onnx.NodeProto]:
    """Replace weights by int8 with a scale per output channel; return the nodes that scale them."""
    constants = {constant.name: constant for constant in graph.initializer}
    names = list(dict.fromkeys(node.input[1] for node in convolutions))
    for node in convolutions:
        node.input[1] = f"{node.input[1]}_rounded"
    nodes = []
    for name in names:
        weights = numpy_helper.to_array(constants[name])
        scale = _scale(np.abs(weights).max(axis=(1, 2, 3)))
        values = np.rint(weights / scale[:, None, None, None]).astype(np.int8)
        constants[name].CopyFrom(numpy_helper.from_array(values, f"{name}_bytes"))
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
        inputs, output = [f"{name}_bytes", f"{name}_scale"], f"{name}_rounded"
        nodes.append(helper.make_node("DequantizeLinear", inputs, [output], name=output, axis=0))
    return nodes


def _quantize_values(
    graph: onnx.GraphProto, readers: Sequence[onnx.NodeProto], largest: Mapping[str, float]
) -> list[onnx.NodeProto]:
    """Connect the readers to quantized tensors, and others to the originals; return all nodes."""
    for reader in readers:
        for index, name in enumerate(reader.input):
            if name in largest:
                reader.input[index] = f"{name}_rounded"
    read = {name for node in graph.node for name in node.input}
    graph.initializer.append(numpy_helper.from_array(np.array(INT8_ZERO, np.uint8), _ZERO_NAME))
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes.append(node)
        for name in (name for name in node.output if name in largest):
            scale = _scale(np.array(largest[name]))
            graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
            nodes += _qdq_nodes(name, shared=name in read)
    return nodes


def _scale(largest: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the value of one 8-bit step; arbitrary if all values are zero."""
    return np.asarray(np.where(largest > 0, largest, 1) / LARGEST, np.float32)


def _qdq_nodes(name: str, *, shared: bool) -> list[onnx.NodeProto]:
    """Make the nodes that output ``NAME_rounded``.

    OpenVINO fuses the rounding into the previous operator if no other node reads its output. If one
    does, an operator without effect is inserted, which costs less than a separate rounding pass.
    """
    source, constants = f"{name}_same" if shared else name, [f"{name}_scale", _ZERO_NAME]
    levels, rounded = f"{name}_bytes", f"{name}_rounded"
    same = helper.make_node("LeakyRelu", [name], [source], name=source, alpha=1.0)
    return [
        *([same] if shared else []),
        helper.make_node("QuantizeLinear", [source, *constants], [levels], name=levels),
        helper.make_node("DequantizeLinear", [levels, *constants], [rounded], name=rounded),
    ]
