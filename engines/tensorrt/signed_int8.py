"""int8 graphs as TensorRT parses them: signed values, and no operator that changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from agsr.contract import INT8_ZERO
from agsr.errors import BuildError
from agsr.system.optional_import import require

VERSION = 1
"""Of what `as_signed` makes; another one lets cached engines be built anew."""


def as_signed(content: bytes, source: str) -> bytes:
    """An int8 graph of ``agsr export`` with signed values around 0, equal in all else.

    Files have unsigned bytes around 128, for CPUs. All other graphs stay as they are.

    Args:
        content: ONNX file.
        source: Its name, for messages.

    Raises:
        BuildError: It is none, or its bytes are around another value.
        MissingDependencyError: onnx is not installed.
    """
    onnx = require("onnx", extra="rtx", purpose="Building an engine")
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf raises a type of its own, derived from Exception
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
    _remove_idle(graph)
    _round_joins(onnx, graph)
    signed: bytes = model.SerializeToString()
    return signed


def _remove_idle(graph: Any) -> None:
    """Take out LeakyRelu of slope 1, which is there for OpenVINO."""
    idle = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "LeakyRelu" and [a.f for a in node.attribute if a.name == "alpha"] == [1]
    }
    kept = [node for node in graph.node if node.output[0] not in idle]
    for node in kept:
        for index, name in enumerate(node.input):
            node.input[index] = idle.get(name, name)
    del graph.node[:]
    graph.node.extend(kept)


def _round_joins(onnx: Any, graph: Any) -> None:
    """Round what is joined once more, which changes nothing: TensorRT looks right before products.

    The parts have one scale.
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
