"""Kinds of weights: what a name or path stands for, found without loading the network.

Data flow: a shipped name or a path → `kind_of` → `agsr.engines.open` chooses the backend's class.
`declared_scale` lets results be named before the network is loaded.
"""

from __future__ import annotations

import json
from enum import Enum
from functools import lru_cache
from pathlib import Path

from agsr.assembly.requested import Blend
from agsr.contract import MAX_FOREIGN_SCALE, PREFIX, SCALE
from agsr.engines.network_facts import cached_facts
from agsr.engines.onnx_file.inspect import read_properties
from agsr.errors import BackendRequestError, MissingDependencyError, ModelError
from agsr.pretrained import ENGINE_SUFFIX, ONNX_SUFFIX, is_community, is_path, shipped_names


class Kind(Enum):
    """What weights are. Missing and unreadable files have the kind that their name promises."""

    SHIPPED = "shipped weights"
    ONNX = "an export of this project"
    FOREIGN_ONNX = "an ONNX file of another project"
    CHECKPOINT = "weights for torch"
    COMMUNITY = "another project's weights for torch"
    ENGINE = "a TensorRT engine"


_BY_SUFFIX = {ONNX_SUFFIX: Kind.ONNX, ENGINE_SUFFIX: Kind.ENGINE}


def kind_of(weights: str) -> Kind:
    """Return the kind of a shipped name or path.

    >>> kind_of("psnr"), kind_of("runs/best.safetensors")
    (<Kind.SHIPPED: 'shipped weights'>, <Kind.CHECKPOINT: 'weights for torch'>)
    """
    if not is_path(weights):
        return Kind.SHIPPED
    if is_community(weights):
        return Kind.COMMUNITY
    kind = _BY_SUFFIX.get(Path(weights).suffix, Kind.CHECKPOINT)
    if kind is Kind.ONNX and _properties(weights) is not None and not _own(weights):
        return Kind.FOREIGN_ONNX
    return kind


def declared_scale(weights: str) -> int | None:
    """Return the scale of a network; None if only the loaded network shows it, or none can be read:
    opening the weights reports why. That of another project's weights for torch is known once they
    were loaded. A name that isn't shipped may be a server's."""
    kind = kind_of(weights)
    if kind is Kind.FOREIGN_ONNX:
        return None
    if kind is Kind.COMMUNITY:
        facts = cached_facts(Path(weights))
        return None if facts is None else facts.scale
    if kind is Kind.ONNX:
        return _valid(_own(weights).get(f"{PREFIX}scale"))
    if kind is Kind.ENGINE:
        return _valid(_engine_metadata(weights).get("scale"))
    if kind is Kind.SHIPPED and weights not in shipped_names() and Blend.parse(weights) is None:
        return None
    return SCALE


def declared_precision(weights: str) -> str | None:
    """Return the precision in the metadata of an exported ``.onnx`` file; None if there is none."""
    return _own(weights).get(f"{PREFIX}precision")


def check_weights_options(weights: str, steps: int | None, hints: str) -> None:
    """Reject options that don't belong to the kind of the weights.

    Args:
        weights: A shipped name or path.
        steps: Time steps, if given.
        hints: Hints, if given.

    Raises:
        BackendRequestError: Hints for a network that needs none, or steps for one without a loop.
            Opening an ``.onnx`` file that is missing or damaged reports that instead.
    """
    kind = kind_of(weights)
    if kind in (Kind.FOREIGN_ONNX, Kind.COMMUNITY) and steps is not None:
        raise BackendRequestError(
            f"{weights}: --steps is for networks of this project, and another's has no such "
            "loop; remove it"
        )
    if hints and kind is not Kind.FOREIGN_ONNX and not _is_unreadable(weights):
        raise BackendRequestError(
            f"--hints describe the ONNX file of another project, and {weights} is "
            f"{kind_of(weights).value}; remove them"
        )


def _is_unreadable(weights: str) -> bool:
    return weights.endswith(ONNX_SUFFIX) and _properties(weights) is None


def _own(weights: str) -> dict[str, str]:
    """Return this project's properties of an ONNX file."""
    properties = _properties(weights) or {}
    return {name: value for name, value in properties.items() if name.startswith(PREFIX)}


def _properties(weights: str) -> dict[str, str] | None:
    """Return the properties of an ONNX file; None if they can't be read."""
    try:
        found = Path(weights).stat()
        return _read(weights, found.st_mtime_ns, found.st_size)
    except (OSError, ValueError, ModelError, MissingDependencyError):  # reported when it is opened
        return None


@lru_cache(maxsize=16)
def _read(weights: str, _time: int, _size: int) -> dict[str, str]:
    return read_properties(Path(weights))


def _engine_metadata(weights: str) -> dict[str, object]:
    """Return the metadata in an engine's sidecar; empty if it can't be read."""
    try:
        sidecar = json.loads(Path(f"{weights}.json").read_text(encoding="utf-8"))
        return dict(sidecar["report"]["metadata"])
    except (OSError, KeyError, TypeError, ValueError):  # reported when it is opened
        return {}


def _valid(scale: object) -> int | None:
    """Return a declared scale; None if it is missing or invalid."""
    text = str(scale)
    valid = text.isdecimal() and 1 <= int(text) <= MAX_FOREIGN_SCALE
    return int(text) if valid else None
