"""What an ONNX file of unknown origin holds, read without running any of it."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agsr.errors import ModelError
from agsr.optional import require

KNOWN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Operator sets that every build of ONNX Runtime brings."""

_PRECISIONS = {
    "FLOAT": "fp32",
    "FLOAT16": "fp16",
    "BFLOAT16": "bf16",
    "DOUBLE": "fp64",
    "INT8": "int8",
    "UINT8": "int8",
}


@dataclass(frozen=True, kw_only=True)
class OnnxContent:
    """Facts of an ONNX file."""

    precision: str
    """Type that most of its weights have: ``fp32``, ``fp16``, ``bf16``, ``fp64`` or ``int8``."""
    sha256: str
    """Hash of the file and of the files that hold its weights, if it has such."""


def read_content(path: Path) -> OnnxContent:
    """Inspect an ONNX file before any of it is run.

    Args:
        path: The file. Weights may lie in other files of its folder, and nowhere else.

    Raises:
        ModelError: It is missing, is no ONNX file, needs operators that ONNX Runtime doesn't have,
            or wants weights from a file that is missing or outside its folder.
        MissingDependencyError: onnx is not installed.
    """
    onnx = require("onnx", extra="bench", purpose="Reading a foreign ONNX file")
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf raises a type of its own, derived from Exception
        raise ModelError(f"{path}: not an ONNX file: {str(error).splitlines()[0]}") from None
    if not model.graph.node:
        raise ModelError(f"{path}: not an ONNX file: it holds no operators")
    _check_operators(model, path)
    tensors = list(_tensors(model))
    external = _external_files(onnx, tensors, path)
    return OnnxContent(precision=_precision(onnx, tensors), sha256=_sha256([path, *external]))


def _check_operators(model: Any, path: Path) -> None:
    defined = {(function.domain, function.name) for function in model.functions}
    used = {(node.domain, node.op_type) for graph in _graphs(model) for node in graph.node}
    foreign = sorted(key for key in used - defined if key[0] not in KNOWN_DOMAINS)
    if foreign:
        names = ", ".join(f"{domain}::{operator}" for domain, operator in foreign)
        raise ModelError(
            f"{path}: needs the custom operators {names}, which ONNX Runtime doesn't have; "
            "expected standard operators only"
        )


def _graphs(model: Any) -> Iterator[Any]:
    """The graph, the model's own functions, and all graphs inside them."""
    waiting = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        yield graph
        for attribute in (a for node in graph.node for a in node.attribute):
            waiting += [inner for inner in (attribute.g, *attribute.graphs) if inner.node]


def _tensors(model: Any) -> Iterator[Any]:
    """Every constant of the model."""
    for graph in _graphs(model):
        yield from getattr(graph, "initializer", ())  # functions have none
        for attribute in (a for node in graph.node for a in node.attribute):
            yield from (attribute.t, *attribute.tensors)


def _external_files(onnx: Any, tensors: list[Any], path: Path) -> list[Path]:
    """Files that hold weights; they have to lie in the model's folder, links followed."""
    folder = path.parent.resolve()
    locations = {
        entry.value
        for tensor in tensors
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    files = [(folder / location).resolve() for location in sorted(locations)]
    for file in files:
        if not file.is_relative_to(folder):
            raise ModelError(f"{path}: wants weights from {file}, outside its folder; refused")
        if not file.is_file():
            raise ModelError(f"{path}: its weights are missing: put {file.name} beside it")
    return files


def _precision(onnx: Any, tensors: list[Any]) -> str:
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        kind = _PRECISIONS.get(onnx.TensorProto.DataType.Name(tensor.data_type))
        if kind is not None:
            sizes[kind] += math.prod(tensor.dims)
    return sizes.most_common(1)[0][0] if sizes else "fp32"


def _sha256(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()
