"""Shipped weights, found by name and verified by SHA-256.

``weights/manifest.json`` maps each shipped file to its hash; ``scripts/ship_weights.py`` writes it.
A name like ``psnr`` resolves to ``psnr.safetensors`` (torch) or ``psnr-STEPS.onnx`` (ONNX Runtime).
"""

from __future__ import annotations

import hashlib
import json
import mimetypes
import os
import re
from functools import cache
from pathlib import Path

from agsr.contract import DEFAULT_STEPS, Precision
from agsr.errors import CheckpointError, UnknownWeightsError, UnshippedError

WEIGHTS_FOLDER = Path(__file__).parent / "weights"
"""Folder of the shipped files."""

DEFAULT_WEIGHTS = "psnr"
"""Default weights."""

WEIGHTS_FOR_FAULTS = "photo"
"""Weights trained on compressed, noisy and soft inputs, whose faults others reproduce."""

ONNX_SUFFIX = ".onnx"
CHECKPOINT_SUFFIX = ".safetensors"
ENGINE_SUFFIX = ".engine"

_ENDING: dict[Precision, str] = {"fp32": "", "fp16": "-fp16", "bf16": "-bf16", "int8": "-int8"}


@cache
def _manifest() -> dict[str, str]:
    path = WEIGHTS_FOLDER / "manifest.json"
    entries: dict[str, str] = json.loads(path.read_text()) if path.is_file() else {}
    return entries


def shipped_names() -> list[str]:
    """Return the names of the shipped weights."""
    return sorted(Path(f).stem for f in _manifest() if f.endswith(CHECKPOINT_SUFFIX))


def shipped_steps(name: str, precision: Precision = "fp32") -> list[int]:
    """Return the step counts of shipped ONNX files in this precision."""
    pattern = re.compile(re.escape(name) + r"-(\d+)" + re.escape(_ENDING[precision] + ONNX_SUFFIX))
    return sorted(int(match[1]) for match in map(pattern.fullmatch, _manifest()) if match)


def find_checkpoint(weights: str) -> Path:
    """Return the path of a weights file for torch.

    Args:
        weights: A shipped name, or the path of a ``.safetensors`` file.

    Raises:
        UnknownWeightsError: The name is unknown, or the file is missing or of another kind.
        CheckpointError: A shipped file is damaged.
    """
    if is_path(weights):
        require_file(weights)
        if Path(weights).suffix != CHECKPOINT_SUFFIX:
            raise UnknownWeightsError(unknown_weights(weights))
        return Path(weights)
    if weights not in shipped_names():
        raise UnknownWeightsError(unknown_weights(weights))
    return _checked(weights + CHECKPOINT_SUFFIX)


def onnx_name(weights: str, steps: int, precision: Precision) -> str:
    """Return the file name of an export.

    >>> onnx_name("psnr", 4, "fp32"), onnx_name("psnr", 4, "fp16")
    ('psnr-4.onnx', 'psnr-4-fp16.onnx')
    """
    return f"{weights}-{steps}{_ENDING[precision]}{ONNX_SUFFIX}"


def default_steps(name: str) -> int:
    """Return the default step count of shipped weights: 4, or the largest one available."""
    known = shipped_steps(name)
    return DEFAULT_STEPS if DEFAULT_STEPS in known or not known else max(known)


def find_onnx(weights: str, steps: int | None = None, precision: Precision = "fp32") -> Path:
    """Return the path of an ONNX file.

    Args:
        weights: A shipped name, or the path of an ``.onnx`` file.
        steps: Time steps, which select the file of a shipped name; None means `default_steps`.
        precision: Arithmetic inside the graph, which selects the file of a shipped name.

    Raises:
        UnknownWeightsError: The name is unknown, or the file is missing or of another kind.
        UnshippedError: The weights are not shipped for these steps in this precision.
        CheckpointError: A shipped file is damaged.
    """
    steps = default_steps(weights) if steps is None else steps
    if is_path(weights):
        require_file(weights)
        if Path(weights).suffix == CHECKPOINT_SUFFIX:
            raise UnknownWeightsError(
                f"{weights}: ONNX Runtime needs an {ONNX_SUFFIX} file; make one with: "
                f"agsr export --weights {weights} --steps {steps}"
            )
        if Path(weights).suffix != ONNX_SUFFIX:
            raise UnknownWeightsError(unknown_weights(weights))
        return Path(weights)
    if weights not in shipped_names():
        raise UnknownWeightsError(unknown_weights(weights))
    if steps not in shipped_steps(weights, precision):
        known = ", ".join(map(str, shipped_steps(weights, precision)))
        ships = f"ship as {precision} ONNX for {known} steps, not for {steps}"
        option = "" if precision == "fp32" else f" --precision {precision}"
        raise UnshippedError(
            f"weights '{weights}' {ships if known else f'do not ship as {precision} ONNX'}; "
            f"make it with: agsr export --weights {weights} --steps {steps}{option}"
        )
    return _checked(onnx_name(weights, steps, precision))


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def is_path(weights: str) -> bool:
    """Return True if ``weights`` is a path, not the name of shipped weights.

    >>> is_path("psnr"), is_path("runs/psnr"), is_path("psnr-4.onnx")
    (False, True, True)
    """
    endings = (ONNX_SUFFIX, CHECKPOINT_SUFFIX, ENGINE_SUFFIX)
    return Path(weights).suffix in endings or "/" in weights or os.sep in weights


def unknown_weights(weights: str) -> str:
    """Return the error message for an unknown name of weights."""
    known = ", ".join(shipped_names()) or "none"
    endings = f"{ONNX_SUFFIX} or {CHECKPOINT_SUFFIX}"
    names = f"shipped: {known}; or give the path of an {endings} file"
    if not Path(weights).is_file():
        return f"no weights named '{weights}'; {names}"
    kind = (mimetypes.guess_type(weights)[0] or "").partition("/")[0]
    found = {"image": "an image", "video": "a video"}.get(kind, "a file with another ending")
    return f"{weights}: {found} by its name, not weights; {names}"


def require_file(path: str | Path) -> None:
    """Check that the path of a model or checkpoint is a file.

    Raises:
        UnknownWeightsError: It is not.
    """
    if not Path(path).is_file():
        reason = "not a file" if Path(path).exists() else "no such file"
        raise UnknownWeightsError(f"{path}: {reason}")


def _checked(file: str) -> Path:
    path = WEIGHTS_FOLDER / file
    if not path.is_file() or sha256(path) != _manifest()[file]:
        raise CheckpointError(f"{path}: missing or damaged; reinstall the package")
    return path
