"""Weights → the bytes of an ONNX file, in any step count and precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agsr._version import __version__
from agsr.assembly.fusion import fuse
from agsr.assembly.generator_graph import EXACT, generator_model
from agsr.assembly.quantize import quantize
from agsr.assembly.weights import GeneratorWeights, config_json
from agsr.contract import ModelMetadata, Precision

DEFAULT_OPSET = 20
"""Default ONNX opset."""

BF16_OPSET = 22
"""The first opset whose Conv accepts bf16, and the default for bf16."""

Measure = Callable[[Any, Sequence[str]], Mapping[str, float]]
"""Returns the largest magnitudes of values of a fp32 graph, by their names."""


def assemble(
    weights: GeneratorWeights,
    steps: int,
    precision: Precision = "fp32",
    *,
    opset: int | None = None,
    measure: Measure | None = None,
    version: str = __version__,
) -> bytes:
    """Write the ONNX file of a generator; the same arguments give the same bytes.

    Args:
        weights: Trained weights.
        steps: Time steps to unroll.
        precision: Arithmetic inside the graph.
        opset: ONNX opset; None means `DEFAULT_OPSET`, for bf16 `BF16_OPSET`.
        measure: For int8 only: measures the ranges of values.
        version: Version of agsr in the metadata.

    Raises:
        ValueError: int8 has no ranges.
        MissingDependencyError: protobuf is not installed.
    """
    default = BF16_OPSET if precision == "bf16" else DEFAULT_OPSET
    layers = fuse(weights.arrays, weights.config)
    model = generator_model(layers, weights.config, steps, precision, opset or default)
    if precision == "int8":
        if measure is None:
            raise ValueError("int8 needs the ranges of values")
        quantize(model, measure, EXACT)
    metadata = ModelMetadata(
        steps=steps,
        precision=precision,
        receptive_radius=weights.config.receptive_radius(steps),
        config=config_json(weights.config),
        weights_hash=weights.hash,
        version=version,
    )
    sign(model, metadata)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def sign(model: Any, metadata: ModelMetadata) -> None:
    """Add the metadata, and agsr as the producer; changes the model."""
    model.producer_name, model.producer_version = "agsr", metadata.version
    del model.metadata_props[:]
    for key, value in metadata.to_properties().items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
