"""Self-describing weights files: safetensors with network shape, training record and scores.

`agsr.training.trainer` writes them, `agsr.export` and the torch backend read them. A network is
rebuilt without flags. Pickle is never loaded.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from agsr.assembly.safetensors_file import CHECKPOINT_FORMAT, require_safetensors
from agsr.assembly.weights import mix, weights_hash
from agsr.errors import CheckpointError
from agsr.model.base import Network, NetworkConfig
from agsr.model.registry import DEFAULT_NETWORK, NETWORKS, build, make_config
from agsr.system.atomic_file import complete_file
from agsr.system.text import in_words


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Weights of a trained network, with shape, training record and scores."""

    model: str = DEFAULT_NETWORK
    """Name of the network, a key of `agsr.model.registry.NETWORKS`."""
    config: NetworkConfig
    """Shape of the network."""
    weights: Mapping[str, Tensor]
    """State dict of the network, float32."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """Training record: configuration, iterations, data, versions."""
    scores: Mapping[str, Any] = field(default_factory=dict)
    """Validation scores: ``{"psnr_y": {"1": 28.2, ...}}``, dB by step count."""

    def build(self) -> Network:
        """Build the network in evaluation mode, on the CPU, float32.

        Raises:
            CheckpointError: The weights don't fit the configuration.
        """
        network = build(self.model, self.config)
        try:
            network.load_state_dict(dict(self.weights))
        except RuntimeError as error:
            raise CheckpointError(f"the weights don't fit their configuration: {error}") from None
        return network.eval().requires_grad_(False)

    @property
    def network_type(self) -> type[Network]:
        """Class of the network."""
        return NETWORKS[self.model]

    @property
    def weights_hash(self) -> str:
        """SHA-256 over names, shapes and values: identifies weights regardless of the file."""
        arrays = {name: t.detach().cpu().numpy() for name, t in self.weights.items()}
        return weights_hash(arrays)


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a weights file; an existing one is replaced only when the new one is complete."""
    header = {
        "format": CHECKPOINT_FORMAT,
        "model": checkpoint.model,
        "config": json.dumps(dataclasses.asdict(checkpoint.config)),
        "record": json.dumps(checkpoint.record),
        "scores": json.dumps(checkpoint.scores),
    }
    write_tensors(checkpoint.weights, header, path)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a weights file.

    Raises:
        CheckpointError: The file is missing or damaged, or not a weights file.
    """
    weights, header = read_tensors(path)
    if header.get("format") != CHECKPOINT_FORMAT:
        raise CheckpointError(
            f"{path}: found format {header.get('format')!r}, expected {CHECKPOINT_FORMAT!r}, as "
            "written by 'agsr train'"
        )
    try:
        model = header.get("model", DEFAULT_NETWORK)  # absent from files of the first version
        config = make_config(model, json.loads(header["config"]))
        config.check_layers(len(weights))
        _check_shapes(model, config, weights)
        record, scores = json.loads(header["record"]), json.loads(header["scores"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: invalid header: {in_words(error)}") from None
    return Checkpoint(model=model, config=config, weights=weights, record=record, scores=scores)


def _check_shapes(model: str, config: NetworkConfig, weights: Mapping[str, Tensor]) -> None:
    """Compare shapes with those of the network before any memory for its weights is allocated.

    Raises:
        ValueError: They differ.
    """
    try:
        with torch.device("meta"):
            expected = build(model, config).state_dict()
    except RuntimeError:  # a product of sides beyond 64 bits
        raise ValueError("a network larger than any memory") from None
    for name, values in expected.items():
        found = tuple(weights[name].shape) if name in weights else None
        if values.is_floating_point() and found != tuple(values.shape):
            raise ValueError(f"{name} has shape {found}, expected {tuple(values.shape)}")


def blend(first: Checkpoint, second: Checkpoint, share: float) -> Checkpoint:
    """Interpolate the weights of two checkpoints of the same network (as ESRGAN does).

    Args:
        first: Checkpoint at a share of 0.
        second: Checkpoint at a share of 1; fine-tuned from ``first``, or the result is noise.
        share: 0 to 1.

    Raises:
        CheckpointError: The networks differ in shape.
        ValueError: The share is out of range.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share}; expected 0 to 1")
    if (first.model, first.config) != (second.model, second.config):
        raise CheckpointError("only weights of networks with the same shape can be blended")
    first.build(), second.build()  # raises unless each has all weights in the right shapes
    weights = {
        name: torch.from_numpy(mix(value.numpy(), second.weights[name].numpy(), share))
        for name, value in first.weights.items()
    }
    record = {"blend": {first.weights_hash: 1 - share, second.weights_hash: share}}
    return Checkpoint(model=first.model, config=first.config, weights=weights, record=record)


def write_tensors(tensors: Mapping[str, Tensor], header: Mapping[str, str], path: Path) -> None:
    """Write tensors and a header of strings as safetensors, atomically."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with complete_file(path) as temporary:
        temporary.write_bytes(save(plain, metadata=dict(header)))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read all tensors and the header of a safetensors file.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    require_safetensors(path)
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file: {error}") from None


def to_float32(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a detached float32 copy of a state dict, on the CPU."""
    return {name: tensor.detach().cpu().to(torch.float32).clone() for name, tensor in state.items()}
