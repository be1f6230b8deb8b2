"""fp32 graph → int8 graph with explicit Q/DQ pairs, laid out for OpenVINO on CPUs.

Convolutions have 8-bit values and int8 weights, both symmetric: values are unsigned around 128,
which is what CPUs multiply. OpenVINO loses 1 dB with signed values, but TensorRT accepts only them,
so `agsr.engines.tensorrt.signed_int8` converts them. Biases, sums and the GRU's products stay
float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agsr.assembly.messages import make_node
from agsr.assembly.tensors import set_array, to_array
from agsr.contract import INT8_ZERO

LARGEST = 127
"""The largest magnitude of an 8-bit value."""

_ZERO_NAME = "zero_point"


def quantize(
    model: Any,
    measure: Callable[[Any, Sequence[str]], Mapping[str, float]],
    exact: Sequence[str] = (),
) -> None:
    """Quantize the convolutions of a graph.

    Args:
        model: fp32 graph, as a message of onnx or of `agsr.assembly.messages`; changed in place.
        measure: Returns the largest magnitude of each of some values of the graph.
        exact: Prefixes of weights' names: these convolutions stay float32, as do the first and the
            last one.
    """
    graph = model.graph
    chosen = [n for n in quantizable(graph) if not n.input[1].startswith(tuple(exact))]
    joins = _joins(graph, chosen)
    values = _values(chosen, joins)
    largest = _join_magnitudes(measure(model, values), joins)
    nodes = _quantize_weights(graph, chosen)
    nodes += _quantize_values(graph, [*chosen, *joins.values()], largest)
    del graph.node[:], graph.value_info[:]  # shapes of tensors that no longer exist
    graph.node.extend(nodes)


def quantizable(graph: Any) -> list[Any]:
    """Return the convolutions but the first and the last one, of computed values with constants."""
    constants = {constant.name for constant in graph.initializer}
    computed = {name for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"][1:-1]
    return [n for n in convolutions if n.input[0] in computed and n.input[1] in constants]


def _joins(graph: Any, convolutions: Sequence[Any]) -> dict[str, Any]:
    """Find concatenations that only these convolutions read, by their outputs.

    Their inputs are quantized instead, with one scale, so that joining them only copies bytes.
    """
    quantized = {node.name for node in convolutions}
    joins: dict[str, Any] = {}
    for node in reversed(graph.node):  # readers come after the join
        readers = {other.name for other in graph.node if node.output[0] in other.input}
        if node.op_type == "Concat" and readers and readers <= quantized:
            quantized.add(node.name)
            joins[node.output[0]] = node
    return joins


def _values(convolutions: Sequence[Any], joins: Mapping[str, Any]) -> list[str]:
    """List the tensors to quantize: inputs of the convolutions and of their joins."""
    read = [node.input[0] for node in convolutions]
    read += [name for join in joins.values() for name in join.input]
    return list(dict.fromkeys(name for name in read if name not in joins))


def _join_magnitudes(largest: Mapping[str, float], joins: Mapping[str, Any]) -> dict[str, float]:
    """Give joined tensors the same magnitude, also through joins of joins."""
    of = {**largest, **dict.fromkeys(joins, 0.0)}
    before: dict[str, float] = {}
    while of != before:
        before = dict(of)
        for name, join in joins.items():
            most = max(of[part] for part in (name, *join.input))
            of.update(dict.fromkeys((name, *join.input), most))
    return {name: of[name] for name in largest}


def _quantize_weights(graph: Any, convolutions: Sequence[Any]) -> list[Any]:
    """Replace weights by int8 with a scale per output channel; return the nodes that scale them."""
    constants = {constant.name: constant for constant in graph.initializer}
    names = list(dict.fromkeys(node.input[1] for node in convolutions))
    for node in convolutions:
        node.input[1] = f"{node.input[1]}_rounded"
    nodes = []
    for name in names:
        weights = to_array(constants[name])
        scale = _scale(np.abs(weights).max(axis=(1, 2, 3)))
        values = np.rint(weights / scale[:, None, None, None]).astype(np.int8)
        set_array(constants[name], f"{name}_bytes", values)
        set_array(graph.initializer.add(), f"{name}_scale", scale)
        inputs, output = [f"{name}_bytes", f"{name}_scale"], f"{name}_rounded"
        nodes.append(make_node(graph, "DequantizeLinear", inputs, output, axis=0))
    return nodes


def _quantize_values(graph: Any, readers: Sequence[Any], largest: Mapping[str, float]) -> list[Any]:
    """Connect the readers to quantized tensors, and others to the originals; return all nodes."""
    for reader in readers:
        for index, name in enumerate(reader.input):
            if name in largest:
                reader.input[index] = f"{name}_rounded"
    read = {name for node in graph.node for name in node.input}
    set_array(graph.initializer.add(), _ZERO_NAME, np.array(INT8_ZERO, np.uint8))
    nodes: list[Any] = []
    for node in graph.node:
        nodes.append(node)
        for name in (name for name in node.output if name in largest):
            scale = _scale(np.array(largest[name]))
            set_array(graph.initializer.add(), f"{name}_scale", scale)
            nodes += _qdq_nodes(graph, name, shared=name in read)
    return nodes


def _scale(largest: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the value of one 8-bit step; arbitrary if all values are zero."""
    return np.asarray(np.where(largest > 0, largest, 1) / LARGEST, np.float32)


def _qdq_nodes(graph: Any, name: str, *, shared: bool) -> list[Any]:
    """Make the nodes that output ``NAME_rounded``.

    OpenVINO fuses the rounding into the previous operator if no other node reads its output. If one
    does, an operator without effect is inserted, which costs less than a separate rounding pass.
    """
    source, constants = f"{name}_same" if shared else name, [f"{name}_scale", _ZERO_NAME]
    levels, rounded = f"{name}_bytes", f"{name}_rounded"
    return [
        *([make_node(graph, "LeakyRelu", [name], source, alpha=1.0)] if shared else []),
        make_node(graph, "QuantizeLinear", [source, *constants], levels),
        make_node(graph, "DequantizeLinear", [levels, *constants], rounded),
    ]
