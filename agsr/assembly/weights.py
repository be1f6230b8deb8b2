"""Weights files as numpy arrays: read, mixed and hashed without torch or the safetensors package.

`agsr.model.checkpoint` reads the same files for torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agsr.assembly.config import GENERATOR, GeneratorConfig
from agsr.assembly.safetensors_file import (
    CHECKPOINT_FORMAT,
    LENGTH_BYTES,
    METADATA,
    safetensors_header,
)
from agsr.errors import CheckpointError, UnknownWeightsError
from agsr.system.text import in_words

Arrays = Mapping[str, NDArray[np.float32]]
"""Weights by name."""


@dataclass(frozen=True, kw_only=True)
class GeneratorWeights:
    """Weights of an attentive generator."""

    config: GeneratorConfig
    """Shape of the network."""
    arrays: Arrays
    """State dict, float32."""

    @property
    def hash(self) -> str:
        """SHA-256 of the weights; see `weights_hash`."""
        return weights_hash(self.arrays)


def weights_hash(arrays: Arrays) -> str:
    """Return the SHA-256 over names, shapes and values: the same for any file with these weights.

    >>> weights_hash({"a": np.zeros(2, np.float32)})[:8]
    '4e9915cc'
    """
    digest = hashlib.sha256()
    for name in sorted(arrays):
        values = arrays[name]
        digest.update(f"{name}{tuple(values.shape)}torch.{values.dtype}".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def read_generator(path: Path) -> GeneratorWeights:
    """Read a weights file of the attentive generator.

    Raises:
        CheckpointError: The file is missing or damaged, or not a weights file.
        UnknownWeightsError: It has another network, which only torch can export.
    """
    header = safetensors_header(path)
    if header is None:
        reason = "not a readable safetensors file" if path.is_file() else "no such file"
        raise CheckpointError(f"{path}: {reason}")
    metadata = header[1].pop(METADATA, {})
    found = metadata.get("format") if isinstance(metadata, dict) else None
    if found != CHECKPOINT_FORMAT:
        raise CheckpointError(
            f"{path}: found format {found!r}, expected {CHECKPOINT_FORMAT!r}, as written by "
            "'agsr train'"
        )
    if metadata.get("model", GENERATOR) != GENERATOR:
        raise UnknownWeightsError(
            f"{path}: a network '{metadata['model']}', which runs on --backend torch; for others "
            f"make an ONNX file with: agsr export --weights {path}"
        )
    try:
        config = GeneratorConfig(**json.loads(metadata["config"]))
        config.check_layers(len(header[1]))
        arrays = _read_arrays(path, header[1])
        _check_shapes(arrays, config)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: invalid header: {in_words(error)}") from None
    return GeneratorWeights(config=config, arrays=arrays)


def _read_arrays(path: Path, entries: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
    content = path.read_bytes()
    length = int.from_bytes(content[:LENGTH_BYTES], "little")
    body = memoryview(content)[LENGTH_BYTES + length :]
    arrays = {}
    for name, entry in entries.items():
        if entry["dtype"] != "F32":
            raise ValueError(f"{name} is {entry['dtype']}, expected F32")
        start, end = entry["data_offsets"]
        values = np.frombuffer(body[start:end], "<f4").reshape(entry["shape"])
        arrays[name] = values.astype(np.float32, copy=False)
    return arrays


def _check_shapes(arrays: Arrays, config: GeneratorConfig) -> None:
    expected = generator_shapes(config)
    found = {name: values.shape for name, values in arrays.items()}
    wrong = sorted(n for n in {*expected, *found} if expected.get(n) != found.get(n))
    if wrong:
        name = wrong[0]
        raise ValueError(f"{name} has shape {found.get(name)}, expected {expected.get(name)}")


def generator_shapes(config: GeneratorConfig) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a generator's weights by name."""
    width, kernel, inner = config.width, config.gru_kernel, config.mapping_width
    layers = {
        "shallow1": (width, 3, 3),
        "shallow2": (width, width, 3),
        "step.join": (width, width + 1, 1),
        "step.gru.gates": (2 * width, 2 * width, kernel),
        "step.gru.candidate": (width, 2 * width, kernel),
        "step.attend": (1, width, 3),
        "upsample": (48, width, 3),
    }
    for block in range(config.dense_blocks):
        name, known = f"step.blocks.{block}", width
        for index in range(config.dense_layers):
            layers[f"{name}.dense.{index}"] = (config.growth, known, 3)
            known += config.growth
        layers[f"{name}.fusion"] = (width, known, 1)
    for index in range(config.mapping_pairs):
        layers[f"mapping.{index}.narrow"] = (inner, width, 3)
        layers[f"mapping.{index}.widen"] = (width, inner, 3)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (out, into, side) in layers.items():
        shapes |= {f"{name}.weight": (out, into, side, side), f"{name}.bias": (out,)}
    return shapes


def mix(
    first: NDArray[np.float32], second: NDArray[np.float32], share: float
) -> NDArray[np.float32]:
    """Interpolate two arrays, rounded once.

    >>> mix(np.float32([1, 3]), np.float32([2, 5]), 0.5).tolist()
    [1.5, 4.0]
    """
    mixed = (1 - share) * first.astype(np.float64) + share * second.astype(np.float64)
    return mixed.astype(np.float32)


def blend(first: GeneratorWeights, second: GeneratorWeights, share: float) -> GeneratorWeights:
    """Interpolate the weights of two networks of the same shape.

    Args:
        first: Weights at a share of 0.
        second: Weights at a share of 1.
        share: 0 to 1.

    Raises:
        CheckpointError: The networks differ in shape.
    """
    if first.config != second.config:
        raise CheckpointError("only weights of networks with the same shape can be blended")
    arrays = {name: mix(value, second.arrays[name], share) for name, value in first.arrays.items()}
    return GeneratorWeights(config=first.config, arrays=arrays)


def config_json(config: GeneratorConfig) -> str:
    """Return a shape as files store it.

    >>> config_json(GeneratorConfig())[:14]
    '{"width": 64, '
    """
    return json.dumps({field.name: getattr(config, field.name) for field in fields(config)})


def to_safetensors(weights: GeneratorWeights, record: Mapping[str, Any]) -> bytes:
    """Return the content of a weights file, which `agsr.model.checkpoint` reads.

    Args:
        weights: Its weights.
        record: Where they come from.
    """
    metadata = {
        "format": CHECKPOINT_FORMAT,
        "model": GENERATOR,
        "config": config_json(weights.config),
        "record": json.dumps(record),
        "scores": "{}",
    }
    header: dict[str, Any] = {METADATA: metadata}
    body = bytearray()
    for name, values in weights.arrays.items():
        start = len(body)
        body += values.astype("<f4").tobytes()
        offsets = [start, len(body)]
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": offsets}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % LENGTH_BYTES)  # tensors start at a multiple of it
    return len(text).to_bytes(LENGTH_BYTES, "little") + text + bytes(body)
