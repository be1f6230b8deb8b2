"""Convert int8 graphs for TensorRT: signed values, and no operators without effect."""

from __future__ import annotations

from typing import Any

import numpy as np

from agsr.contract import INT8_ZERO
from agsr.errors import BuildError
from agsr.system.optional_import import require

VERSION = 1
"""Version of `as_signed`; a new one makes cached engines be rebuilt."""


def as_signed(content: bytes, source: str) -> bytes:
    """Convert an int8 graph of ``agsr export`` to signed values around 0, otherwise unchanged.

    Exported files have unsigned bytes around 128, for CPUs. Other graphs are returned unchanged.

    Args:
        content: Content of an ONNX file.
        source: Its name, for messages.

    Raises:
        BuildError: It is not an ONNX file, or its bytes are around another value.
        MissingDependencyError: onnx is not installed.
    """
    onnx = require("onnx", extra="rtx", purpose="Building an engine")
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf raises its own type, derived from Exception
        raise BuildError(f"{source}: not an ONNX file: {error}") from None
    graph = model.graph
    pairs = [n for n in graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    zeros = {node.input[2] for node in pairs if len(node.input) > 2}
    constants = [constant for constant in graph.initializer if constant.name in zeros]
    unsigned = [c for c in constants if onnx.numpy_helper.to_array(c).dtype == np.uint8]
    if not unsigned:
        return content
    for constant in unsigned:
        if not (onnx.numpy_helper.to_array(constant) == INT8_ZERO).all():
            raise BuildError(
                f"{source}: int8 values that are not around {INT8_ZERO}: {constant.name}"
            )
        constant.CopyFrom(onnx.numpy_helper.from_array(np.array(0, np.int8), constant.name))
    _remove_no_ops(graph)
    _requantize_joins(onnx, graph)
    signed: bytes = model.SerializeToString()
    return signed


def _remove_no_ops(graph: Any) -> None:
    """Remove LeakyRelu of slope 1, which is there for OpenVINO."""
    no_ops = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "LeakyRelu" and [a.f for a in node.attribute if a.name == "alpha"] == [1]
    }
    nodes = [node for node in graph.node if node.output[0] not in no_ops]
    for node in nodes:
        for index, name in enumerate(node.input):
            node.input[index] = no_ops.get(name, name)
    del graph.node[:]
    graph.node.extend(nodes)


def _requantize_joins(onnx: Any, graph: Any) -> None:
    """Add a Q/DQ pair after each Concat, where TensorRT looks for one: right before convolutions.

    It changes no value, since the inputs have one scale.
    """
    scaled = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    nodes: list[Any] = []
    joined: dict[str, str] = {}
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = joined.get(name, name)
        nodes.append(node)
        if node.op_type == "Concat" and node.input[0] in scaled:
            name, constants = node.output[0], scaled[node.input[0]].input[1:]
            levels, rounded = f"{name}_bytes", f"{name}_rounded"
            nodes += [
                onnx.helper.make_node("QuantizeLinear", [name, *constants], [levels]),
                onnx.helper.make_node("DequantizeLinear", [levels, *constants], [rounded]),
            ]
            joined[name] = rounded
            scaled[rounded] = nodes[-1]
    del graph.node[:]
    graph.node.extend(nodes)
