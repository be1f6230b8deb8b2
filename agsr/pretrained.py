"""Shipped weights, found by name and verified by SHA-256.

``weights/manifest.json`` has the hash of each shipped file and of those that are made of them;
``scripts/ship_weights.py`` writes it. A name like ``psnr`` resolves to ``psnr.safetensors`` (torch)
or ``psnr-STEPS.onnx`` (other runtimes). Files of the default step count are shipped; others, and
blends like ``psnr:gan:0.3``, are made in the user's cache by `agsr.assembly`.
"""

from __future__ import annotations

import hashlib
import json
import mimetypes
import os
import re
from functools import cache
from pathlib import Path
from typing import TypedDict

from agsr.assembly.requested import Blend, Source, checkpoint_file, onnx_file, step_scales
from agsr.contract import DEFAULT_STEPS, MAX_STEPS, Precision
from agsr.errors import CheckpointError, UnknownWeightsError, UnshippedError
from agsr.system.file_kind import WEIGHTS_SUFFIXES
from agsr.system.text import counted, did_you_mean

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

SCALES_FILE = "int8-scales.json"
"""File of the ranges of values in int8, by weights, steps and value. A step count has what differs
from the next larger one."""

_ENDING: dict[Precision, str] = {"fp32": "", "fp16": "-fp16", "bf16": "-bf16", "int8": "-int8"}


class _Manifest(TypedDict):
    version: str
    """Version of agsr in the metadata of the ONNX files."""
    files: dict[str, str]
    """SHA-256 of the shipped files."""
    assembled: dict[str, str]
    """SHA-256 of ONNX files that are made of them, as measured for the release."""


@cache
def _manifest() -> _Manifest:
    path = WEIGHTS_FOLDER / "manifest.json"
    if not path.is_file():
        return {"version": "", "files": {}, "assembled": {}}
    manifest: _Manifest = json.loads(path.read_text())
    return manifest


def shipped_names() -> list[str]:
    """Return the names of the shipped weights."""
    return sorted(Path(f).stem for f in _manifest()["files"] if f.endswith(CHECKPOINT_SUFFIX))


def shipped_steps(name: str, precision: Precision = "fp32") -> list[int]:
    """Return the step counts that were measured in this precision; others can be had, too."""
    pattern = re.compile(re.escape(name) + r"-(\d+)" + re.escape(_ENDING[precision] + ONNX_SUFFIX))
    matches = map(pattern.fullmatch, _manifest()["assembled"])
    return sorted(int(match[1]) for match in matches if match)


def resolve_weights(weights: str) -> str:
    """Return the path of weights that are named like a file in the user's folder of models.

    Anything else is returned as it is: a path, a shipped name, an unknown name. Of a blend, both
    names are resolved.

    Args:
        weights: What the user named: ``4x-UltraSharp`` or ``4x-UltraSharp.pth``.
    """
    blend = Blend.parse(weights)
    if blend is not None:
        ends = resolve_weights(blend.first), resolve_weights(blend.second)
        return str(Blend(*ends, blend.share))
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
        weights: A shipped name, the path of a ``.safetensors`` file, or a blend of two of these,
            which is made.

    Raises:
        UnknownWeightsError: The name is unknown, or the file is missing or of another kind.
        CheckpointError: A shipped file is damaged, or the ends of a blend differ in shape.
    """
    blend = Blend.parse(weights)
    if blend is not None:
        return checkpoint_file(_source(weights), blend.name)
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
    """Return the path of an ONNX file; one that isn't shipped is made of its weights.

    Args:
        weights: A shipped name, the path of an ``.onnx`` file or of this project's ``.safetensors``
            file, or a blend.
        steps: Time steps; None means `default_steps`. An ``.onnx`` file has its own.
        precision: Arithmetic inside the graph; an ``.onnx`` file has its own.

    Raises:
        UnknownWeightsError: The name is unknown, or the file is missing or of another kind.
        UnshippedError: The weights can't be had with these steps in this precision.
        CheckpointError: A shipped file is damaged.
    """
    blend = Blend.parse(weights)
    if blend is None and is_path(weights) and Path(weights).suffix != CHECKPOINT_SUFFIX:
        require_file(weights)
        if Path(weights).suffix != ONNX_SUFFIX:
            raise UnknownWeightsError(unknown_weights(weights))
        return Path(weights)
    steps = default_steps(weights) if steps is None else steps
    if not 1 <= steps <= MAX_STEPS:
        raise UnshippedError(f"steps is {steps}; expected 1 to {MAX_STEPS}")
    source = _source(weights)
    name = onnx_name(Path(weights).stem if blend is None else blend.name, steps, precision)
    if weights in shipped_names() and (WEIGHTS_FOLDER / name).is_file():
        return _checked(name)
    return _assembled(weights, source, name, steps, precision)


def _assembled(weights: str, source: Source, name: str, steps: int, precision: Precision) -> Path:
    """Make an ONNX file, with the ranges of values that int8 needs."""
    is_shipped, scales = weights in shipped_names(), None
    if precision == "int8":
        scales = _scales(weights, steps) if is_shipped else {}
        if not scales:
            raise UnshippedError(
                f"{weights}: int8 has no ranges of values for {counted(steps, 'step')} of these "
                f"weights; use fp16, or measure them with: agsr export --weights {weights} "
                f"--steps {steps} --precision int8 --calibrate FOLDER"
            )
    version = _manifest()["version"] if is_shipped else ""
    expected = _manifest()["assembled"].get(name, "") if is_shipped else ""
    return onnx_file(
        source, name, steps, precision, scales=scales, version=version, expected=expected
    )


def _scales(weights: str, steps: int) -> dict[str, float]:
    """Return one 8-bit step of each value of a graph; empty if they weren't measured."""
    by_steps = json.loads(_checked(SCALES_FILE).read_text()).get(weights, {})
    return step_scales(by_steps, steps) if str(steps) in by_steps else {}


def _source(weights: str) -> Source:
    """Return the weights files of a shipped name, a path or a blend.

    Raises:
        UnknownWeightsError: One is missing or of another kind.
    """
    blend = Blend.parse(weights)
    if blend is None:
        path = find_checkpoint(weights)
        known = None if is_path(weights) else _manifest()["files"][path.name]
        return Source((path,), (known or sha256(path),))
    blend.check_ends()
    ends = _source(blend.first), _source(blend.second)
    files, hashes = zip(*((end.files[0], end.hashes[0]) for end in ends), strict=True)
    return Source(files, hashes, blend.share)


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
    from agsr.assembly.safetensors_file import METADATA, safetensors_header

    header = safetensors_header(path)
    if header is None:
        return False
    metadata = header[1].get(METADATA)
    own = str(metadata.get("format", "")) if isinstance(metadata, dict) else ""
    return not own.startswith("agsr-")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def is_path(weights: str) -> bool:
    """Return True if ``weights`` is a path, not the name of shipped weights.

    >>> is_path("psnr"), is_path("runs/psnr"), is_path("psnr-4.onnx"), is_path("psnr:gan:0.3")
    (False, True, True, False)
    """
    if Blend.parse(weights) is not None:
        return False
    return Path(weights).suffix in WEIGHTS_SUFFIXES or "/" in weights or os.sep in weights


def unknown_weights(weights: str) -> str:
    """Return the error message for an unknown name of weights."""
    known = ", ".join(shipped_names()) or "none"
    endings = f"{ONNX_SUFFIX}, {CHECKPOINT_SUFFIX} or {PICKLE_SUFFIX}"
    names = f"shipped: {known}; or give the path of an {endings} file"
    if Path(weights).suffix in REFUSED_SUFFIXES:
        return f"{weights}: {REFUSED_SUFFIXES[Path(weights).suffix]}"
    if not Path(weights).is_file():
        return f"no weights named '{weights}'; {did_you_mean(weights, _names_here())}{names}"
    kind = (mimetypes.guess_type(weights)[0] or "").partition("/")[0]
    found = {"image": "an image", "video": "a video"}.get(kind, "a file with another ending")
    return f"{weights}: {found} by its name, not weights; {names}"


def _names_here() -> list[str]:
    """Return the names of shipped weights, and of files in the user's model folder."""
    folder = Path(os.environ.get(MODELS_VARIABLE, "") or os.devnull)
    endings = (ONNX_SUFFIX, CHECKPOINT_SUFFIX, PICKLE_SUFFIX)
    files = folder.iterdir() if folder.is_dir() else ()
    return [*shipped_names(), *(path.stem for path in files if path.suffix in endings)]


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
    if not path.is_file() or sha256(path) != _manifest()["files"][file]:
        raise CheckpointError(f"{path}: missing or damaged; reinstall the package")
    return path
