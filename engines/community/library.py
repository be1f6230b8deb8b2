"""The networks that are at hand: shipped ones, and those in the user's folder of models.

Reading is cheap: ONNX files are described by their metadata, and what spandrel finds in a ``.pth``
file is cached by the file's size and time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from agsr.contract import PRECISIONS, PREFIX, SCALE, ModelMetadata, SizeRule
from agsr.engines.community.halo import cached_halo
from agsr.engines.community.licences import provenance
from agsr.engines.community.measurements import Subject
from agsr.engines.network_facts import NetworkFacts, cached_facts
from agsr.engines.onnx_file.inspect import read_properties
from agsr.engines.runtimes.providers import is_runtime_installed
from agsr.errors import AgsrError, ModelError
from agsr.pretrained import (
    CHECKPOINT_SUFFIX,
    ONNX_SUFFIX,
    PICKLE_SUFFIX,
    is_community,
    shipped_names,
    shipped_steps,
)
from agsr.system.optional_import import install_command

_REQUIRED = ("torch", "torchvision", "safetensors", "spandrel")


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """A network at hand."""

    name: str
    """What ``-w`` names it by."""
    path: str = ""
    """Its file; empty for shipped weights."""
    architecture: str = ""
    """Its architecture; empty if unknown."""
    scale: int | None = None
    """Its scale; None if unknown."""
    precisions: tuple[str, ...] = ()
    """Arithmetic that it runs in."""
    backends: tuple[str, ...] = ()
    """Installed backends that run it, the first at once, others by an export."""
    author: str = ""
    """Who made it; empty if unknown."""
    licence: str = ""
    """Its licence; empty if unknown."""
    halo: str = ""
    """Measured halo of its tiles; empty if it wasn't measured, or is known."""
    problem: str = ""
    """Why it doesn't run, and what would help; empty if it does."""


def list_models(folder: Path | None) -> Iterator[ModelEntry]:
    """List shipped networks, then those of a folder by name.

    Raises:
        ModelError: The folder doesn't exist.
    """
    for name in shipped_names():
        precisions = tuple(p for p in PRECISIONS if shipped_steps(name, p))
        yield ModelEntry(
            name=name,
            architecture="agsr",
            scale=SCALE,
            precisions=precisions,
            backends=_installed("ort", "openvino", "trt", "torch"),
        )
    if folder is None:
        return
    if not folder.is_dir():
        raise ModelError(f"{folder}: not a folder of models")
    endings = (ONNX_SUFFIX, CHECKPOINT_SUFFIX, PICKLE_SUFFIX)
    for path in sorted(folder.iterdir()):
        if path.suffix in endings and path.is_file():
            yield describe(path)


def describe(path: Path) -> ModelEntry:
    """Describe a model's file; what is wrong with it is its `ModelEntry.problem`."""
    try:
        if path.suffix == ONNX_SUFFIX:
            return _onnx(path)
        if not is_community(str(path)):
            return ModelEntry(
                name=path.stem,
                path=str(path),
                architecture="agsr",
                scale=SCALE,
                precisions=("fp32", "fp16", "bf16"),
                backends=_installed("torch"),
            )
        return _weights(path)
    except AgsrError as error:
        return ModelEntry(name=path.stem, path=str(path), problem=str(error))


def _onnx(path: Path) -> ModelEntry:
    properties = read_properties(path)
    if f"{PREFIX}version" not in properties:
        return ModelEntry(name=path.stem, path=str(path), backends=_installed("ort", "openvino"))
    metadata = ModelMetadata.from_properties(properties, str(path))
    known = provenance(metadata.weights_hash)
    return ModelEntry(
        name=path.stem,
        path=str(path),
        architecture=metadata.architecture or "agsr",
        scale=metadata.scale,
        precisions=(metadata.precision,),
        backends=_installed("ort", "openvino", "trt"),
        author=known.author if known else "",
        licence=known.licence if known else "",
        halo=_halo(metadata.weights_hash, metadata.precision, metadata.sizes),
    )


def _weights(path: Path) -> ModelEntry:
    facts = _facts(path)
    known = provenance(facts.sha256)
    missing = [module for module in _REQUIRED if find_spec(module) is None]
    return ModelEntry(
        name=path.stem,
        path=str(path),
        architecture=facts.architecture,
        scale=facts.scale,
        precisions=facts.precisions,
        backends=_installed("torch", "ort", "openvino", "trt"),
        author=known.author if known else "",
        licence=known.licence if known else "",
        halo=_halo(facts.sha256, "fp32", facts.sizes),
        problem=f"needs {', '.join(missing)}: {install_command('models')}" if missing else "",
    )


def _installed(*runtimes: str) -> tuple[str, ...]:
    """Return the runtimes that are installed here."""
    return tuple(name for name in runtimes if is_runtime_installed(name))


def _halo(weights_hash: str, precision: str, sizes: SizeRule) -> str:
    found = cached_halo(Subject.of_file(weights_hash, precision, sizes))
    return "" if found is None else str(found)


def _facts(path: Path) -> NetworkFacts:
    """Return what spandrel finds in a file: from the cache, or by loading the file once."""
    found = cached_facts(path)
    if found is not None:
        return found
    from agsr.engines.community.loader import load_network

    return load_network(path).facts
