"""What is checked of an exported ``.onnx`` file of ours, whichever runtime runs it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from agsr.contract import INPUT_NAME, OUTPUT_NAME
from agsr.engines.onnx_file.inspect import check_self_contained
from agsr.errors import BackendError, ModelError
from agsr.pretrained import WEIGHTS_FOLDER


def check_file(path: Path) -> None:
    """Check a file before a runtime loads it; shipped ones are known by their hash.

    Raises:
        ModelError: It is no ONNX file, or wants more than is in it.
    """
    if path.is_file() and path.parent != WEIGHTS_FOLDER:
        check_self_contained(path.read_bytes(), str(path))


def check_io(session: Any, path: Path) -> None:
    """Check the inputs and outputs of a session.

    Args:
        session: Of ONNX Runtime, or `agsr.engines.runtimes.openvino_session.OpenVinoSession`.
        path: Its file, for messages.

    Raises:
        ModelError: They are not those of the contract.
    """
    ports = [*session.get_inputs(), *session.get_outputs()]
    found = [(port.name, port.type, len(port.shape)) for port in ports]
    expected = [(name, "tensor(float)", 4) for name in (INPUT_NAME, OUTPUT_NAME)]
    if found != expected:
        raise ModelError(
            f"{path}: its inputs and outputs are {found}; expected {INPUT_NAME} → {OUTPUT_NAME}, "
            "float32 of rank 4"
        )


def running_precision(
    path: Path, graph: str, asked: str | None, choices: Collection[str], place: str
) -> str:
    """What a graph runs in.

    Args:
        path: Its file, for messages.
        graph: Precision of the graph.
        asked: What it has to run in; None takes what is there.
        choices: What the place can run an fp32 graph in; all others have their own precision.
        place: What runs it, for messages.

    Raises:
        BackendError: It can't run in what was asked for.
    """
    running = (asked or "fp32") if graph == "fp32" else graph
    if asked not in (None, running) or (graph == "fp32" and running not in choices):
        can = " or ".join(choices) if graph == "fp32" else graph
        raise BackendError(
            f"{path}: {place} runs {graph} graphs in {can}, not in {asked}; "
            f"make another with: agsr export -w WEIGHTS --precision {asked}"
        )
    return running
