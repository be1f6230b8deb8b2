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
from typing import Any

from agsr.contract import DEFAULT_STEPS, Precision
from agsr.errors import CheckpointError, UnknownWeightsError, UnshippedError
from agsr.system.file_kind import head, is_torch, known_kind

WEIGHTS_FOLDER = Path(__file__).parent / "weights"
"""Folder of the shipped files."""

DEFAULT_WEIGHTS = "psnr"
"""Default weights."""

WEIGHTS_FOR_FAULTS = "photo"
"""Weights trained on compressed, noisy and soft inputs, whose faults others reproduce."""

ONNX_SUFFIX = ".onnx"
CHECKPOINT_SUFFIX = ".safetensors"
ENGINE_SUFFIX = ".engine"

PICKLE_SUFFIX = ".pth"
"""Ending of other projects' weights as torch writes them; they may also be safetensors files."""

MODELS_VARIABLE = "AGSR_MODELS"
"""Environment variable that names the user's folder of models."""

REFUSED_SUFFIXES = {
    ".pt": "may be TorchScript, which is code and isn't run; rename plain weights to .pth",
    ".ckpt": "may be the state of a training, with code; rename plain weights to .pth",
}
"""Endings of files that are not loaded, with the reason."""

CHECKPOINT_FORMAT = "agsr-generator-1"
"""Value of ``format`` in the header of this project's weights files."""

_LARGEST_HEADER = 64 << 20
"""Bytes of the largest header of a safetensors file."""

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


def resolve_weights(weights: str) -> str:
    """Return the path of weights that are named like a file in the user's folder of models.

    Anything else is returned as it is: a path, a shipped name, an unknown name.

    Args:
        weights: What the user named: ``4x-UltraSharp`` or ``4x-UltraSharp.pth``.
    """
    folder = os.environ.get(MODELS_VARIABLE, "")
    if not folder or weights in shipped_names() or Path(weights).name != weights:
        return weights
    if Path(weights).is_file():
        return weights
    endings = ("", ONNX_SUFFIX, CHECKPOINT_SUFFIX, PICKLE_SUFFIX)
    paths = (Path(folder, weights + ending) for ending in endings)
    found = next((path for path in paths if path.suffix in endings[1:] and path.is_file()), None)
    return weights if found is None else str(found)


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


def onnx_name(weights: str, steps: int | None, precision: Precision) -> str:
    """Return the file name of an export.

    >>> onnx_name("psnr", 4, "fp32"), onnx_name("psnr", 4, "fp16"), onnx_name("4x", None, "fp32")
    ('psnr-4.onnx', 'psnr-4-fp16.onnx', '4x.onnx')
    """
    number = "" if steps is None else f"-{steps}"
    return f"{weights}{number}{_ENDING[precision]}{ONNX_SUFFIX}"


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


def is_community(weights: str) -> bool:
    """Return True if ``weights`` is the path of another project's weights, for torch.

    That is any ``.pth`` file, and a ``.safetensors`` file whose header isn't this project's. One
    that is missing or has no header counts as this project's; `require_safetensors` rejects it.

    >>> is_community("4x-UltraSharp.pth"), is_community("psnr"), is_community("other.onnx")
    (True, False, False)
    """
    path = Path(weights)
    if path.suffix != CHECKPOINT_SUFFIX:
        return path.suffix == PICKLE_SUFFIX
    header = safetensors_header(path)
    if header is None:
        return False
    metadata = header[1].get("__metadata__")
    own = str(metadata.get("format", "")) if isinstance(metadata, dict) else ""
    return not own.startswith("agsr-")


def safetensors_header(path: Path) -> tuple[int, dict[str, Any]] | None:
    """Read the header of a safetensors file; nothing else of it is read.

    Returns:
        The bytes that follow the header, and its entries by name; None if there is no header.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            held = os.fstat(file.fileno()).st_size - 8 - length
            if not 2 <= length <= _LARGEST_HEADER or held < 0:
                return None
            entries = json.loads(file.read(length))
    except (OSError, ValueError, RecursionError):
        return None
    return (held, entries) if isinstance(entries, dict) else None


def require_safetensors(path: Path) -> None:
    """Check that a ``.safetensors`` file is one, by its header.

    Raises:
        CheckpointError: It is another kind of file, or truncated.
    """
    if path.suffix != CHECKPOINT_SUFFIX or not path.is_file() or safetensors_header(path):
        return
    start = head(path)
    if found := known_kind(start):
        rename = f"; rename it to {PICKLE_SUFFIX}" if is_torch(start) else ""
        raise CheckpointError(f"{path}: not a readable safetensors file but {found}{rename}")
    raise CheckpointError(f"{path}: not a readable safetensors file: its header is damaged")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def is_path(weights: str) -> bool:
    """Return True if ``weights`` is a path, not the name of shipped weights.

    >>> is_path("psnr"), is_path("runs/psnr"), is_path("psnr-4.onnx")
    (False, True, True)
    """
    endings = (ONNX_SUFFIX, CHECKPOINT_SUFFIX, ENGINE_SUFFIX, PICKLE_SUFFIX, *REFUSED_SUFFIXES)
    return Path(weights).suffix in endings or "/" in weights or os.sep in weights


def unknown_weights(weights: str) -> str:
    """Return the error message for an unknown name of weights."""
    known = ", ".join(shipped_names()) or "none"
    endings = f"{ONNX_SUFFIX}, {CHECKPOINT_SUFFIX} or {PICKLE_SUFFIX}"
    names = f"shipped: {known}; or give the path of an {endings} file"
    if Path(weights).suffix in REFUSED_SUFFIXES:
        return f"{weights}: {REFUSED_SUFFIXES[Path(weights).suffix]}"
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
