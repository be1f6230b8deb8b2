"""A model as a Triton server describes it: found by name, and its format understood.

Data flow: the weights and options of a request → the name of a model of the server → its metadata
and configuration → `ServedModel`. Models written by ``agsr export --triton`` describe their network
in the parameters of their configuration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agsr.contract import (
    CHANNELS,
    INPUT_NAME,
    OUTPUT_NAME,
    PRECISIONS,
    PREFIX,
    ModelMetadata,
    Precision,
)
from agsr.engines.foreign.io_spec import IoSpec
from agsr.engines.triton.client import Client
from agsr.errors import BackendError, BackendRequestError, ModelError
from agsr.pretrained import default_steps, is_path, onnx_name, shipped_names
from agsr.system.text import printable

HINTS = f"{PREFIX}hints"
"""Parameter of another project's model: its format, in the form of
`agsr.engines.foreign.Hints.parse`."""

WHOLE = f"{PREFIX}whole_model"
"""Parameter of a model for one size of tiles: the model of the same network for any size."""

_VERSION = f"{PREFIX}version"

_TYPES = {"FP32": "tensor(float)", "FP16": "tensor(float16)", "UINT8": "tensor(uint8)"}
"""ONNX Runtime's names of Triton's element types; others keep Triton's."""

_LISTED = 8


@dataclass(frozen=True)
class Tensor:
    """An input or output, described as ONNX Runtime does it."""

    name: str
    type: str
    shape: list[int]
    """All axes, -1 for any size."""
    kind: str
    """Element type, by Triton's name."""


@dataclass(frozen=True)
class ServedModel:
    """A model of a server; to `agsr.engines.foreign.probe`, a session."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    max_batch: int
    """Largest batch; 0 if the model itself has no axis for it that Triton knows."""
    parameters: dict[str, str] = field(default_factory=dict)

    def get_inputs(self) -> list[Tensor]:
        """List the inputs."""
        return list(self.inputs)

    def get_outputs(self) -> list[Tensor]:
        """List the outputs."""
        return list(self.outputs)

    def metadata(self, source: str) -> ModelMetadata | None:
        """Return what the export of this project's or a converted network recorded; None if it is
        another project's file.

        Raises:
            ModelError: It is invalid, or input and output are others than it requires.
        """
        if _VERSION not in self.parameters or HINTS in self.parameters:
            return None
        found = [(t.name, t.kind, len(t.shape)) for t in (*self.inputs, *self.outputs)]
        if found != [(INPUT_NAME, "FP32", 4), (OUTPUT_NAME, "FP32", 4)]:
            raise ModelError(
                f"{source}: its inputs and outputs are {found}; expected {INPUT_NAME} → "
                f"{OUTPUT_NAME}, FP32 of rank 4: write its folder again with agsr export --triton"
            )
        return ModelMetadata.from_properties(self.parameters, source)


def contract_spec(model: ServedModel, metadata: ModelMetadata) -> IoSpec:
    """Return the format of a model with this project's metadata."""
    batch = model.inputs[0].shape[0] if not model.max_batch else -1
    return IoSpec(
        input=INPUT_NAME,
        output=OUTPUT_NAME,
        input_type="float32",
        output_type="float32",
        input_layout="NCHW",
        output_layout="NCHW",
        channels=CHANNELS,
        order="rgb",
        output_order="rgb",
        scale=metadata.scale,
        batch=batch if batch > 0 else None,
        rule=metadata.sizes,
    )


def names_of(weights: str, steps: int | None, precision: str | None) -> list[str]:
    """List the names that weights may have on a server, the likeliest first.

    >>> names_of("psnr", None, None)
    ['psnr', 'psnr-4']
    >>> names_of("runs/best.safetensors", 2, "fp16")
    ['best', 'best-2-fp16']

    Raises:
        BackendRequestError: There is no such precision.
    """
    if precision not in (None, "auto", *PRECISIONS):
        raise BackendRequestError(
            f"no precision named '{precision}'; known: {', '.join(PRECISIONS)}"
        )
    name = Path(weights).stem if is_path(weights) else weights
    if steps is None and name in shipped_names():
        steps = default_steps(name)
    known: Precision = next((p for p in PRECISIONS if p == precision), "fp32")
    exported = Path(onnx_name(name, steps, known)).stem
    return list(dict.fromkeys((name, exported)))


def find_model(client: Client, names: Sequence[str]) -> ServedModel:
    """Return the first of these models that the server runs.

    Raises:
        BackendError: It has none of them, or they aren't ready; the message lists what it has.
    """
    listed = client.models()
    states = {str(found["name"]): found for found in listed}
    for name in names:
        state = states.get(name, {})
        if state.get("state") == "READY":
            return _described(client, name)
    raise BackendError(_missing(client, names, states))


def find_whole(client: Client, model: ServedModel) -> str | None:
    """Return the model for sizes other than that of a tile's; None if the server runs none."""
    name = model.parameters.get(WHOLE)
    ready = {found["name"] for found in client.models() if found.get("state") == "READY"}
    if name is None or name not in ready:
        return None
    whole = _described(client, name)
    same = [whole.parameters.get(key) == model.parameters.get(key) for key in _IDENTITY]
    return name if all(same) else None


_IDENTITY = tuple(PREFIX + name for name in ("weights_hash", "precision", "steps"))
"""Parameters that are equal for models of one network."""


def _missing(client: Client, names: Sequence[str], states: dict[str, dict[str, Any]]) -> str:
    """Describe why no model can be used, and what to type."""
    failed = next((states[name] for name in names if name in states), None)
    if failed is not None:
        reason = failed.get("reason") or failed.get("state") or "not loaded"
        return f"{client}: model '{failed['name']}' isn't ready: {printable(str(reason))}"
    ready = sorted(name for name, found in states.items() if found.get("state") == "READY")
    more = f" and {len(ready) - _LISTED} more" if len(ready) > _LISTED else ""
    has = printable(", ".join(ready[:_LISTED])) + more if ready else "none"
    wanted = " or ".join(f"'{name}'" for name in names)
    return (
        f"{client}: no model {wanted}; its models: {has}. Name one with -w, or add it: "
        f"agsr export -w WEIGHTS --triton FOLDER"
    )


def _described(client: Client, name: str) -> ServedModel:
    metadata, config = client.metadata(name), client.config(name)
    return ServedModel(
        name=name,
        inputs=_tensors(metadata.get("inputs", [])),
        outputs=_tensors(metadata.get("outputs", [])),
        max_batch=int(config.get("max_batch_size", 0)),
        parameters={
            key: str(value.get("string_value", ""))
            for key, value in config.get("parameters", {}).items()
        },
    )


def _tensors(listed: Sequence[dict[str, Any]]) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(
            name=str(found["name"]),
            type=_TYPES.get(found["datatype"], str(found["datatype"])),
            shape=[int(side) for side in found.get("shape", [])],  # gRPC's JSON has text
            kind=str(found["datatype"]),
        )
        for found in listed
    )
