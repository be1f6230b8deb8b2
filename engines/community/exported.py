"""ONNX files of other projects' weights, exported at first use and cached.

The export runs in a separate process, by the command line: torch then takes no memory beside the
runtime that runs the file, and running a network still needs neither torch nor onnx in its process.
An entry is named by the SHA-256 of the weights, the precision and the version of agsr.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from agsr._version import __version__
from agsr.contract import ModelMetadata, Precision
from agsr.engines.network_facts import cached_facts
from agsr.engines.onnx_file.inspect import read_properties
from agsr.errors import BackendRequestError, ModelError
from agsr.pretrained import ONNX_SUFFIX, require_file, sha256
from agsr.system.cache_dir import cache_folder, check_private, make_private
from agsr.system.cache_files import digest, evict

MAX_ENTRIES = 32
"""Files that the cache holds; the longest unused ones are removed."""

_FOLDER = "community"
_PROGRAM = "from agsr.cli import main; main()"
_ERROR = "Error: "

_log = logging.getLogger(__name__)


def exported_file(path: Path, precision: Precision | None, place: str) -> Path:
    """Return the ONNX file of another project's weights: from the cache, or exported now.

    Args:
        path: ``.pth`` or ``.safetensors`` file.
        precision: Arithmetic inside the graph; None means fp32.
        place: What is to run it, for messages.

    Raises:
        ModelError: The network can't be exported; the message says why.
        BackendRequestError: It has no such precision.
        BackendError: The cache can't be written to, or others can write to it.
    """
    target = cached_path(path, precision or "fp32")
    if target.is_file():
        check_private(target.parent)
        difference = _difference(target, path, precision or "fp32")
        if not difference:
            with suppress(OSError):  # removed meanwhile, or a cache that can't be written to
                os.utime(target)
            return target
        _log.warning("%s: its cached export is not used: %s", path, difference)
    make_private(target.parent)
    _log.warning("%s: exporting it to ONNX for %s, once; this takes a minute or two", path, place)
    _export(path, target, precision or "fp32")
    evict(target.parent.glob(f"*{ONNX_SUFFIX}"), MAX_ENTRIES)
    return target


def cached_path(path: Path, precision: Precision) -> Path:
    """Return where the export of weights is cached, whether it exists or not."""
    require_file(path)
    facts = {"weights": sha256(path), "precision": precision, "version": __version__}
    return (
        cache_folder().absolute() / _FOLDER / f"{path.stem[:100]}-{digest(facts)[:32]}{ONNX_SUFFIX}"
    )


def _difference(target: Path, path: Path, precision: Precision) -> str:
    """Describe how a cached export's metadata differs from the weights; empty if it doesn't."""
    try:
        found = ModelMetadata.from_properties(read_properties(target), str(target))
        config = json.loads(found.config)
    except (ModelError, OSError, ValueError) as error:
        return str(error)
    pairs: dict[str, tuple[object, object]] = {
        "weights": (found.weights_hash, sha256(path)),
        "precision": (found.precision, precision),
    }
    if (facts := cached_facts(path)) is not None:
        pairs |= {
            "scale": (found.scale, facts.scale),
            "channels": (config.get("channels"), facts.channels),
            "architecture": (found.architecture, facts.architecture),
        }
    wrong = (f"its {name} is {a!r}, expected {b!r}" for name, (a, b) in pairs.items() if a != b)
    return next(wrong, "")


def _export(path: Path, target: Path, precision: str) -> None:
    """Run ``agsr export`` in a separate process.

    It has this process's import path, but for the working directory: nothing that lies there or in
    the cache is imported.
    """
    program = f"import sys; sys.path[:] = {[p for p in sys.path if p]!r}\n{_PROGRAM}"
    command = [sys.executable, "-c", program, "export"]
    command += ["--weights", str(path.absolute()), "--precision", precision, "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0 and target.is_file():
        return
    errors = [line for line in done.stderr.splitlines() if line.startswith(_ERROR)]
    if not errors:
        raise ModelError(f"{path}: the export ended with status {done.returncode}")
    kind = BackendRequestError if done.returncode == 2 else ModelError
    raise kind(errors[-1].removeprefix(_ERROR))
