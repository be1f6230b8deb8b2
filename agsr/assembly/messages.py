"""ONNX's protocol buffers, described here as far as they are written, without onnx.

protobuf is a dependency of ONNX Runtime. The descriptors are in a pool that onnx doesn't see, so
both can be loaded. Messages have the attributes that those of onnx have, and the functions of this
package work on either.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from agsr.system.optional_import import require

FLOAT, INT, BYTES, STRING = "TYPE_FLOAT", "TYPE_INT64", "TYPE_BYTES", "TYPE_STRING"
"""Types of fields."""

Fields = Mapping[str, Mapping[str, tuple[int, str]]]
"""Messages with their fields' numbers and types: one of the above, or the name of a message; a
star marks repeated fields."""

_ONNX: Fields = {
    "Model": {
        "ir_version": (1, INT),
        "producer_name": (2, STRING),
        "producer_version": (3, STRING),
        "graph": (7, "Graph"),
        "opset_import": (8, "*OperatorSet"),
        "metadata_props": (14, "*Entry"),
    },
    "OperatorSet": {"domain": (1, STRING), "version": (2, INT)},
    "Entry": {"key": (1, STRING), "value": (2, STRING)},
    "Graph": {
        "node": (1, "*Node"),
        "name": (2, STRING),
        "initializer": (5, "*Tensor"),
        "input": (11, "*ValueInfo"),
        "output": (12, "*ValueInfo"),
        "value_info": (13, "*ValueInfo"),
    },
    "Node": {
        "input": (1, "*" + STRING),
        "output": (2, "*" + STRING),
        "name": (3, STRING),
        "op_type": (4, STRING),
        "attribute": (5, "*Attribute"),
        "domain": (7, STRING),
    },
    "Attribute": {
        "name": (1, STRING),
        "f": (2, FLOAT),
        "i": (3, INT),
        "s": (4, BYTES),
        "ints": (8, "*" + INT),
        "type": (20, INT),
    },
    "Tensor": {
        "dims": (1, "*" + INT),
        "data_type": (2, INT),
        "float_data": (4, "*" + FLOAT),
        "name": (8, STRING),
        "raw_data": (9, BYTES),
    },
    "ValueInfo": {"name": (1, STRING), "type": (2, "Type")},
    "Type": {"tensor_type": (1, "TensorType")},
    "TensorType": {"elem_type": (1, INT), "shape": (2, "Shape")},
    "Shape": {"dim": (1, "*Dimension")},
    "Dimension": {"dim_value": (1, INT), "dim_param": (2, STRING)},
}

_ATTRIBUTE_TYPES = {"f": 1, "i": 2, "s": 3, "ints": 7}
"""``AttributeProto.AttributeType`` by the field that holds the value."""


def new_model() -> Any:
    """Return an empty model.

    Raises:
        MissingDependencyError: protobuf is not installed.
    """
    require("google.protobuf", extra="cpu", purpose="Writing an ONNX file")
    return _model_type()()


@cache
def _model_type() -> Any:
    return message_type(_ONNX, "Model")


def message_type(fields: Fields, name: str) -> Any:
    """Make the class of a message; protobuf is installed.

    Args:
        fields: All messages that it contains.
        name: Its name.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="agsr/onnx", package="agsr")
    for message, described in fields.items():
        described_message = file.message_type.add(name=message)
        for field, (number, kind) in described.items():
            made = described_message.field.add(name=field, number=number)
            made.label = kinds.LABEL_REPEATED if kind[0] == "*" else kinds.LABEL_OPTIONAL
            plain = kind.lstrip("*")
            if plain in fields:
                made.type, made.type_name = kinds.TYPE_MESSAGE, f".agsr.{plain}"
            else:
                made.type = kinds.Type.Value(plain)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"agsr.{name}"))


def make_node(graph: Any, operator: str, inputs: list[str], output: str, **attributes: Any) -> Any:
    """Make a node that is named after its output; it isn't added to the graph.

    Args:
        graph: A graph of the same family of messages.
        operator: Type of the operator.
        inputs: Names of the values it reads.
        output: Name of the value it computes.
        attributes: Its attributes: numbers, byte strings or lists of whole numbers.
    """
    node = type(graph)().node.add()
    node.op_type, node.name = operator, output
    node.input.extend(inputs)
    node.output.append(output)
    for name, value in attributes.items():
        attribute = node.attribute.add()
        attribute.name = name
        kinds = {float: "f", int: "i", bytes: "s", list: "ints"}
        field = kinds[type(value)]
        attribute.type = _ATTRIBUTE_TYPES[field]
        if field == "ints":
            attribute.ints.extend(value)
        else:
            setattr(attribute, field, value)
    return node
