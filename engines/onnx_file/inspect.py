"""Inspect an ONNX file of unknown origin without running any of it."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agsr.engines.onnx_file.proto import DATA_TYPES, EXTERNAL, not_onnx, parse
from agsr.errors import ModelError
from agsr.pretrained import require_file

KNOWN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Operator sets that every build of ONNX Runtime contains."""

_IN_MEMORY = "_ORT_MEM_ADDR_"
"""Marks locations that ONNX Runtime interprets as addresses in its process."""

COMPILED = ("com.microsoft", "EPContext")
"""The operator that contains code compiled for a device, or names a file that does."""


@dataclass(frozen=True, kw_only=True)
class OnnxContent:
    """Contents of an ONNX file."""

    precision: str
    """Type of most of its weights: ``fp32``, ``fp16``, ``bf16``, ``fp64`` or ``int8``."""
    sha256: str
    """Hash of the file and of its external weights, if any."""


def read_content(path: Path) -> OnnxContent:
    """Inspect an ONNX file before any of it is run.

    Args:
        path: The file. External weights must lie in its folder.

    Raises:
        ModelError: It is missing, is not an ONNX file, needs operators that ONNX Runtime doesn't
            have, or references weights in a file that is missing or outside its folder.
        MissingDependencyError: protobuf is not installed.
    """
    require_file(path)
    content = path.read_bytes()
    tensors = _checked(content, str(path))
    files = [file.read_bytes() for file in _external_files(tensors, path)]
    return OnnxContent(precision=_precision(tensors), sha256=_sha256([content, *files]))


def read_properties(path: Path) -> dict[str, str]:
    """Read the metadata properties of an ONNX file.

    Raises:
        ModelError: It is not an ONNX file.
        MissingDependencyError: protobuf is not installed.
    """
    model = _parsed(path.read_bytes(), str(path))
    return {_text(entry.key): _text(entry.value) for entry in model.metadata_props}


def accepts_one_picture(path: Path) -> bool:
    """Return True if the graph of an export accepts one picture a call only.

    Raises:
        ModelError: It is not an ONNX file.
        MissingDependencyError: protobuf is not installed.
    """
    graph = _parsed(path.read_bytes(), str(path)).graph
    shapes = [value.type.tensor_type.shape.dim for value in graph.input]
    return any(axes[0].dim_value == 1 for axes in shapes[:1] if axes)


def check_self_contained(content: bytes, source: str) -> None:
    """Check a file that has to be complete in itself, as exports are, before anything loads it.

    Args:
        content: Content of the file.
        source: Its name, for messages.

    Raises:
        ModelError: It is not an ONNX file, needs operators that ONNX Runtime doesn't have, or
            references external data.
        MissingDependencyError: protobuf is not installed.
    """
    if any(tensor.data_location == EXTERNAL for tensor in _checked(content, source)):
        raise ModelError(
            f"{source}: has weights in other files; expected all of them inside: write such a file "
            f"with onnx.save(onnx.load({source!r}), 'NEW.onnx')"
        )


def _checked(content: bytes, source: str) -> list[Any]:
    """Return the constants of a file, after checking its operators."""
    model = _parsed(content, source)
    _check_operators(model, source)
    return list(_tensors(model))


def _parsed(content: bytes, source: str) -> Any:
    model = parse(content, source)
    if not model.graph.node:
        raise not_onnx(content, source, "it has no operators")
    return model


def _check_operators(model: Any, source: str) -> None:
    defined = {(_text(f.domain), _text(f.name)) for f in model.functions}
    nodes = (node for graph in _graphs(model) for node in graph.node)
    used = {(_text(node.domain), _text(node.op_type)) for node in nodes}
    if COMPILED in used:
        raise ModelError(f"{source}: contains code compiled for a device ({COMPILED[1]}); rejected")
    foreign = sorted(key for key in used - defined if key[0] not in KNOWN_DOMAINS)
    if foreign:
        names = ", ".join(f"{domain}::{operator}" for domain, operator in foreign)
        raise ModelError(
            f"{source}: needs the custom operators {names}, which ONNX Runtime doesn't have; "
            "expected standard operators only"
        )


def _graphs(model: Any) -> Iterator[Any]:
    """Yield the graph, the model's functions, and all graphs inside them."""
    waiting = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        yield graph
        for attribute in (a for node in graph.node for a in node.attribute):
            waiting += [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]


def _tensors(model: Any) -> Iterator[Any]:
    """Yield every constant of the model."""
    for graph in _graphs(model):
        yield from getattr(graph, "initializer", ())  # functions have none
        sparse = [*getattr(graph, "sparse_initializer", ())]
        for attribute in (a for node in graph.node for a in node.attribute):
            yield from (attribute.t, *attribute.tensors)
            sparse += [attribute.sparse_tensor, *attribute.sparse_tensors]
        for tensor in sparse:
            yield from (tensor.values, tensor.indices)


def _external_files(tensors: list[Any], path: Path) -> list[Path]:
    """Return the files of external weights, which must be in the model's folder, links resolved."""
    folder = path.parent.resolve()
    entries = (e for t in tensors if t.data_location == EXTERNAL for e in t.external_data)
    locations = {entry.value for entry in entries if entry.key == b"location"}
    return [_inside(folder, _text(location), path) for location in sorted(locations)]


def _inside(folder: Path, location: str, path: Path) -> Path:
    if _IN_MEMORY in location:
        raise ModelError(f"{path}: references weights at an address in memory; rejected")
    try:
        file = (folder / location).resolve()
        is_there = file.is_file()
    except (OSError, RuntimeError, ValueError):  # too long, a loop of links, a null byte
        raise ModelError(
            f"{path}: references weights in {location!r}, which is not a file"
        ) from None
    if not file.is_relative_to(folder):
        raise ModelError(f"{path}: references weights in {file}, outside its folder; rejected")
    if not is_there:
        raise ModelError(f"{path}: its weights are missing: put {file.name} beside it")
    return file


def _precision(tensors: list[Any]) -> str:
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        kind = DATA_TYPES.get(tensor.data_type)
        if kind is not None:
            sizes[kind] += math.prod(tensor.dims)
    return sizes.most_common(1)[0][0] if sizes else "fp32"


def _text(name: bytes) -> str:
    return name.decode(errors="backslashreplace")


def _sha256(contents: list[bytes]) -> str:
    digest = hashlib.sha256()
    for content in contents:
        digest.update(content)
    return digest.hexdigest()
