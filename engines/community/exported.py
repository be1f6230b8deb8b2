"""ONNX files of other projects' weights, exported at first use and cached.

The export runs in a separate process, by the command line: torch then takes no memory beside the
runtime that runs the file, and running a network still needs neither torch nor onnx in its process.
An entry is named by the SHA-256 of the weights, the precision and the version of agsr.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from agsr._version import __version__
from agsr.contract import Precision
from agsr.engines.cache_files import digest, evict
from agsr.errors import BackendError, ModelError
from agsr.pretrained import ONNX_SUFFIX, require_file, sha256
from agsr.system.cache_dir import CACHE_VARIABLE, cache_folder

MAX_ENTRIES = 32
"""Files that the cache holds; the longest unused ones are removed."""

_FOLDER = "community"

_log = logging.getLogger(__name__)


def exported_file(path: Path, precision: Precision | None, place: str) -> Path:
    """Return the ONNX file of another project's weights: from the cache, or exported now.

    Args:
        path: ``.pth`` or ``.safetensors`` file.
        precision: Arithmetic inside the graph; None means fp32.
        place: What is to run it, for messages.

    Raises:
        ModelError: The network can't be exported; the message says why.
        BackendError: The cache can't be written to.
    """
    target = cached_path(path, precision or "fp32")
    if target.is_file():
        target.touch()
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BackendError(
            f"{target.parent}: can't be created: {error.strerror}; set {CACHE_VARIABLE}"
        ) from None
    _log.warning("%s: exporting it to ONNX for %s, once; this takes a minute or two", path, place)
    _export(path, target, precision or "fp32")
    evict(target.parent.glob(f"*{ONNX_SUFFIX}"), MAX_ENTRIES)
    return target


def cached_path(path: Path, precision: Precision) -> Path:
    """Return where the export of weights is cached, whether it exists or not."""
    require_file(path)
    facts = {"weights": sha256(path), "precision": precision, "version": __version__}
    return cache_folder() / _FOLDER / f"{path.stem}-{digest(facts)[:32]}{ONNX_SUFFIX}"


def _export(path: Path, target: Path, precision: str) -> None:
    """Run ``agsr export`` in a separate process."""
    command = [sys.executable, "-c", "from agsr.cli import main; main()", "export"]
    command += ["--weights", str(path.resolve()), "--precision", precision, "-o", str(target)]
    package = find_spec("agsr")
    folders = [str(Path(package.origin).parents[1])] if package and package.origin else []
    paths = [*folders, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        command, env=environment, cwd=target.parent, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        reason = lines[-1] if lines else f"{path}: the export ended with status {done.returncode}"
        raise ModelError(reason.removeprefix("Error: "))
