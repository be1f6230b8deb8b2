"""Parse the parts of an ONNX file that `agsr.engines.onnx_file.inspect` reads, without onnx.

ONNX files are protocol buffers (onnx.proto3); fields not named here are skipped. protobuf is a
dependency of ONNX Runtime.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from agsr.assembly.messages import BYTES, INT, Fields, message_type
from agsr.errors import ModelError
from agsr.system.file_kind import HEAD, known_kind
from agsr.system.optional_import import require

EXTERNAL = 1
"""``TensorProto.data_location`` of values in another file."""

DATA_TYPES = {1: "fp32", 10: "fp16", 16: "bf16", 11: "fp64", 3: "int8", 2: "int8"}
"""``TensorProto.DataType`` of weights, as precisions."""

_FIELDS: Fields = {  # strings as bytes: invalid UTF-8 is not an error
    "Model": {
        "graph": (7, "Graph"),
        "metadata_props": (14, "*Entry"),
        "functions": (25, "*Function"),
    },
    "Graph": {
        "node": (1, "*Node"),
        "initializer": (5, "*Tensor"),
        "input": (11, "*ValueInfo"),
        "sparse_initializer": (15, "*SparseTensor"),
    },
    "ValueInfo": {"name": (1, BYTES), "type": (2, "Type")},
    "Type": {"tensor_type": (1, "TensorType")},
    "TensorType": {"shape": (2, "Shape")},
    "Shape": {"dim": (1, "*Dimension")},
    "Dimension": {"dim_value": (1, INT)},
    "Function": {"name": (1, BYTES), "node": (7, "*Node"), "domain": (10, BYTES)},
    "Node": {"op_type": (4, BYTES), "attribute": (5, "*Attribute"), "domain": (7, BYTES)},
    "Attribute": {
        "t": (5, "Tensor"),
        "g": (6, "Graph"),
        "tensors": (10, "*Tensor"),
        "graphs": (11, "*Graph"),
        "sparse_tensor": (22, "SparseTensor"),
        "sparse_tensors": (23, "*SparseTensor"),
    },
    "Tensor": {
        "dims": (1, "*" + INT),
        "data_type": (2, INT),
        "external_data": (13, "*Entry"),
        "data_location": (14, INT),
    },
    "SparseTensor": {"values": (1, "Tensor"), "indices": (2, "Tensor")},
    "Entry": {"key": (1, BYTES), "value": (2, BYTES)},
}
"""What is read of a file."""


def parse(content: bytes, source: str) -> Any:
    """Parse an ONNX file as the message ``Model`` of `_FIELDS`.

    Raises:
        ModelError: It is not an ONNX file.
        MissingDependencyError: protobuf is not installed.
    """
    require("google.protobuf", extra="cpu", purpose="Reading an ONNX file")
    from google.protobuf.message import DecodeError

    try:
        return _model_type().FromString(content)
    except DecodeError as error:
        raise not_onnx(content, source, str(error).splitlines()[0]) from None


def not_onnx(content: bytes, source: str, reason: str) -> ModelError:
    """Return the error for a file that isn't ONNX, with what it is if its first bytes show that."""
    kind = known_kind(content[:HEAD])
    other = f" but {kind}" if kind and "ONNX" not in kind else ""
    return ModelError(f"{source}: not an ONNX file{other}: {reason}")


@cache
def _model_type() -> Any:
    return message_type(_FIELDS, "Model")
