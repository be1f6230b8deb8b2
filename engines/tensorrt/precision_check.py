"""Verify an engine's precision: of the layers that TensorRT parsed, and of those it built.

Parsed layers are counted in the network definition. Built ones are read from the engine by
TensorRT's inspector, which needs a GPU that can load the engine.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from agsr.contract import ModelMetadata, Precision
from agsr.engines.tensorrt.api import TensorRt, load_engine
from agsr.errors import BackendError, BuildError

PRODUCTS = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY")
"""Kinds of parsed layers that multiply."""

_TYPES: dict[Precision, str] = {"fp32": "FLOAT", "fp16": "HALF", "bf16": "BF16", "int8": "INT8"}
_SPELLINGS = {
    "INT8": re.compile(r"int8", re.IGNORECASE),
    "BF16": re.compile(r"bf16|bfloat16", re.IGNORECASE),
    "HALF": re.compile(r"half|fp16|\bfloat16", re.IGNORECASE),
    "FLOAT": re.compile(r"fp32|float", re.IGNORECASE),
}
"""How versions of the inspector spell types; the first match counts."""
_TYPE_KEYS = ("DataType", "Datatype", "Format/Datatype", "Format/DataType", "Format")

_log = logging.getLogger(__name__)


def parsed_layers(network: Any) -> dict[str, dict[str, int]]:
    """Count the parsed layers by kind and type.

    A layer that multiplies dequantized values counts as INT8: TensorRT fuses the three layers.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    dequantized = {la.get_output(0).name for la in layers if la.type.name == "DEQUANTIZE"}
    found: dict[str, Counter[str]] = {}
    for layer in layers:
        kind, dtype = layer.type.name, layer.get_output(0).dtype.name
        if kind in PRODUCTS and layer.get_input(0).name in dequantized:
            dtype = "INT8"
        found.setdefault(kind, Counter())[dtype] += 1
    return {kind: dict(types) for kind, types in sorted(found.items())}


def check_parsed(
    layers: Mapping[str, dict[str, int]], metadata: ModelMetadata, source: str
) -> None:
    """Compare the multiplying parsed layers with the precision that the file declares.

    Raises:
        BuildError: Some have another type; for int8, all have.
    """
    expected = _TYPES[metadata.precision]
    products = {kind: layers[kind] for kind in PRODUCTS if kind in layers}
    if expected == "INT8":  # some convolutions stay float32
        foreign = {} if any(expected in types for types in products.values()) else products
    else:
        foreign = {kind: types for kind, types in products.items() if set(types) != {expected}}
    for kind, types in foreign.items():
        found = ", ".join(f"{n} in {t}" for t, n in types.items() if t != expected)
        raise BuildError(
            f"{source} declares {metadata.precision}, but of its {kind.lower()} layers {found}; "
            f"export it again with: agsr export --precision {metadata.precision}"
        )


def built_products(
    trt: TensorRt, engine: bytes, source: str, *, host_code: bool = False
) -> dict[str, int]:
    """Count a built engine's convolutions by type.

    Args:
        trt: TensorRT to use.
        engine: Serialized engine for this machine's GPU, built with detailed verbosity.
        source: Its name, for messages.
        host_code: Whether the engine is version-compatible, see `load_engine`.

    Returns:
        Counts like ``{"HALF": 63}``; empty if the inspector does not report convolutions: TensorRT
        may fuse them into layers of another name.

    Raises:
        BuildError: The engine can't be loaded.
    """
    try:
        loaded = load_engine(trt, engine, host_code=host_code)
    except BackendError as error:
        raise BuildError(
            f"{source}: its engine was built, but can't be loaded on this GPU: {error}"
        ) from None
    inspector = loaded.create_engine_inspector()
    information = inspector.get_engine_information(trt.module.LayerInformationFormat.JSON)
    try:
        layers = json.loads(information)["Layers"]
    except (ValueError, KeyError, TypeError) as error:
        _log.warning("%s: TensorRT's inspector gave an unknown report: %s", source, error)
        return {}
    return dict(Counter(filter(None, map(_product_type, layers))))


def check_built(built: Mapping[str, int], metadata: ModelMetadata, source: str) -> None:
    """Compare an engine's convolutions with the precision that its file declares.

    Raises:
        BuildError: Some have another type; for int8, all have.
    """
    expected = _TYPES[metadata.precision]
    if not built or set(built) == {expected} or (expected == "INT8" and expected in built):
        return
    found = ", ".join(f"{n} in {t}" for t, n in built.items() if t != expected)
    raise BuildError(
        f"{source} declares {metadata.precision}, but the engine that TensorRT built has "
        f"convolutions of another type: {found}; use another precision or version of TensorRT"
    )


def _product_type(layer: Any) -> str | None:
    """Return the type of a built convolution; None for another layer or an unknown type."""
    if not isinstance(layer, dict):  # only a name: the engine was built with less verbosity
        return None
    kinds = f"{layer.get('LayerType', '')} {layer.get('ParameterType', '')}".lower()
    if "conv" not in kinds or "reformat" in kinds:
        return None
    weights = layer.get("Weights")
    names = [weights.get("Type", "")] if isinstance(weights, dict) else []
    for tensor in layer.get("Inputs", [])[:1]:
        names += [tensor[key] for key in _TYPE_KEYS if key in tensor]
    return next((name for text in names for name in [_type_name(text)] if name), None)


def _type_name(text: str) -> str | None:
    return next((name for name, spelt in _SPELLINGS.items() if spelt.search(text)), None)
