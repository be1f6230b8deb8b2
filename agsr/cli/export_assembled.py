"""`agsr export` without torch: the file is assembled, and not compared with the trained network."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import click

from agsr.assembly.requested import Blend
from agsr.contract import Precision
from agsr.pretrained import default_steps, find_onnx, onnx_name
from agsr.system.text import counted


def can_assemble(opset: int | None, tolerance: float | None, calibrate: Path | None) -> bool:
    """Return True if torch is missing, and nothing is asked for that only an export with it has."""
    return find_spec("torch") is None and not any((opset, tolerance, calibrate))


def assembled_path(
    weights: str, steps: int | None, precision: Precision, output: Path | None
) -> Path:
    """Return where the file goes.

    Raises:
        OSError: It can't be written.
    """
    from agsr.system.atomic_file import check_writable

    blend = Blend.parse(weights)
    name = Path(weights).stem if blend is None else blend.name
    path = output or Path(onnx_name(name, steps or default_steps(weights), precision))
    check_writable(path)
    return path


def write_assembled(
    weights: str, steps: int | None, precision: Precision, path: Path, as_json: bool
) -> None:
    """Write the file that an export would write, and report it.

    Raises:
        RequestError: The weights don't exist in that form.
        CheckpointError: A weights file is damaged.
        OSError: The file can't be written.
    """
    from agsr.system.atomic_file import complete_file

    content = find_onnx(weights, steps, precision).read_bytes()
    with complete_file(path) as temporary:
        temporary.write_bytes(content)
    if as_json:
        click.echo(json.dumps({"path": str(path), "size": len(content), "parity": []}))
        return
    unrolled = counted(steps or default_steps(weights), "step")
    click.echo(
        f"{path}  {len(content) / 1e6:.2f} MB, {unrolled}, {precision}; not compared with torch, "
        "which is not installed"
    )
