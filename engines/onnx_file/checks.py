"""Checks of exported ``.onnx`` files, the same for every runtime."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from agsr.contract import INPUT_NAME, OUTPUT_NAME, ModelMetadata
from agsr.engines.onnx_file.inspect import check_self_contained
from agsr.errors import BackendError, ModelError
from agsr.pretrained import WEIGHTS_FOLDER


def check_file(path: Path) -> None:
    """Check a file before a runtime loads it; shipped files are verified by their hash instead.

    Raises:
        ModelError: It is not an ONNX file, or references external data or custom operators.
    """
    if path.is_file() and path.parent != WEIGHTS_FOLDER:
        check_self_contained(path.read_bytes(), str(path))


def described(metadata: ModelMetadata) -> dict[str, Any]:
    """Return what a file's metadata says about its network, as fields of `BackendInfo`."""
    return {
        "steps": metadata.steps,
        "receptive_radius": metadata.receptive_radius,
        "weights_hash": metadata.weights_hash,
        "scale": metadata.scale,
        "architecture": metadata.architecture,
        "tiling": metadata.tiling,
        "largest": metadata.sizes.fixed,
    }


def tile_align(metadata: ModelMetadata) -> int:
    """Return what tiles are aligned to; 1 for a network of this project, which needs no grid."""
    return metadata.sizes.tile_align if metadata.architecture else 1


def check_io(session: Any, path: Path) -> None:
    """Check the inputs and outputs of a session.

    Args:
        session: ONNX Runtime session or `agsr.engines.runtimes.openvino_session.OpenVinoSession`.
        path: Its file, for messages.

    Raises:
        ModelError: They do not follow the contract.
    """
    tensors = [*session.get_inputs(), *session.get_outputs()]
    found = [(tensor.name, tensor.type, len(tensor.shape)) for tensor in tensors]
    expected = [(name, "tensor(float)", 4) for name in (INPUT_NAME, OUTPUT_NAME)]
    if found != expected:
        raise ModelError(
            f"{path}: its inputs and outputs are {found}; expected {INPUT_NAME} → {OUTPUT_NAME}, "
            "float32 of rank 4"
        )


def running_precision(
    path: Path,
    graph: str,
    requested: str | None,
    choices: Collection[str],
    runtime: str,
    remedy: str = "",
) -> str:
    """Return the precision that a graph runs in.

    Args:
        path: Its file, for messages.
        graph: Precision of the graph.
        requested: Precision to run in; None means the graph's.
        choices: Precisions in which the runtime can run an fp32 graph; others fix their precision.
        runtime: Name of what runs it, for messages.
        remedy: How to get another file; empty means ``agsr export``.

    Raises:
        BackendError: It can't run in the requested precision.
    """
    running = (requested or "fp32") if graph == "fp32" else graph
    if requested not in (None, running) or (graph == "fp32" and running not in choices):
        can = " or ".join(choices) if graph == "fp32" else graph
        remedy = remedy or f"make another with: agsr export -w WEIGHTS --precision {requested}"
        raise BackendError(
            f"{path}: {runtime} runs {graph} graphs in {can}, not in {requested}; {remedy}"
        )
    return running
