"""The weights that ship with the package, found by name and checked by SHA-256.

``weights/manifest.json`` maps each shipped file to its hash; ``scripts/ship_weights.py`` writes it.
A name like ``psnr`` stands for ``psnr.safetensors`` (torch) and ``psnr-STEPS.onnx`` (ONNX Runtime).
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
"""Where the shipped files lie."""

DEFAULT_WEIGHTS = "psnr"
"""Weights where nothing else is asked for."""

WEIGHTS_FOR_FAULTS = "photo"
"""Weights that were trained on compressed, noisy and soft inputs, which others take as they are."""

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
    """Names of the shipped weights."""
    return sorted(Path(f).stem for f in _manifest() if f.endswith(CHECKPOINT_SUFFIX))


def shipped_steps(name: str, precision: Precision = "fp32") -> list[int]:
    """Step counts for which a shipped ONNX file of this precision exists."""
    pattern = re.compile(re.escape(name) + r"-(\d+)" + re.escape(_ENDING[precision] + ONNX_SUFFIX))
    return sorted(int(match[1]) for match in map(pattern.fullmatch, _manifest()) if match)


def find_checkpoint(weights: str) -> Path:
    """Path of a weights file for torch.

    Args:
        weights: A shipped name, or the path of a ``.safetensors`` file.

    Raises:
        UnknownWeightsError: No such name or file, or one with another ending.
        CheckpointError: A shipped file is damaged.
    """
    if is_path(weights):
        if not Path(weights).is_file():
            raise UnknownWeightsError(missing_file(weights))
        if Path(weights).suffix != CHECKPOINT_SUFFIX:
            raise UnknownWeightsError(unknown_weights(weights))
        return Path(weights)
    if weights not in shipped_names():
        raise UnknownWeightsError(unknown_weights(weights))
    return _checked(weights + CHECKPOINT_SUFFIX)


def onnx_name(weights: str, steps: int, precision: Precision) -> str:
    """File name of an export: ``psnr-4.onnx``, ``psnr-4-fp16.onnx``."""
    return f"{weights}-{steps}{_ENDING[precision]}{ONNX_SUFFIX}"


def default_steps(name: str) -> int:
    """Step count of shipped weights where nothing else is asked for: 4, or the most there are."""
    known = shipped_steps(name)
    return DEFAULT_STEPS if DEFAULT_STEPS in known or not known else max(known)


def find_onnx(weights: str, steps: int | None = None, precision: Precision = "fp32") -> Path:
    """Path of an ONNX file.

    Args:
        weights: A shipped name, or the path of an ``.onnx`` file.
        steps: Time steps; for a shipped name they choose the file. None means `default_steps`.
        precision: Arithmetic inside the graph; for a shipped name it chooses the file.

    Raises:
        UnknownWeightsError: No such name or file.
        UnshippedError: The shipped weights have no file for these steps in this precision.
        CheckpointError: A shipped file is damaged.
    """
    steps = default_steps(weights) if steps is None else steps
    if is_path(weights):
        if not Path(weights).is_file():
            raise UnknownWeightsError(missing_file(weights))
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
    """SHA-256 of a file's content, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def is_path(weights: str) -> bool:
    """Whether these words name a file, and not shipped weights."""
    endings = (ONNX_SUFFIX, CHECKPOINT_SUFFIX, ENGINE_SUFFIX)
    return Path(weights).suffix in endings or "/" in weights or os.sep in weights


def unknown_weights(weights: str) -> str:
    """What to say of a name that no shipped weights have."""
    known = ", ".join(shipped_names()) or "none"
    endings = f"{ONNX_SUFFIX} or {CHECKPOINT_SUFFIX}"
    names = f"shipped: {known}; or give the path of an {endings} file"
    if not Path(weights).is_file():
        return f"no weights named '{weights}'; {names}"
    kind = (mimetypes.guess_type(weights)[0] or "").partition("/")[0]
    found = {"image": "an image", "video": "a video"}.get(kind, "a file with another ending")
    return f"{weights}: {found} by its name, not weights; {names}"


def missing_file(path: str | Path) -> str:
    """What to say of a model's or checkpoint's path that leads to no file."""
    return f"{path}: {'not a file' if Path(path).exists() else 'no such file'}"


def _checked(file: str) -> Path:
    path = WEIGHTS_FOLDER / file
    if not path.is_file() or sha256(path) != _manifest()[file]:
        raise CheckpointError(f"{path}: missing or damaged; reinstall the package")
    return path
