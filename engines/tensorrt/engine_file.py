"""Engine files of ``agsr build``: an engine, and a sidecar that describes it.

An engine is code. Engines in the cache are checked against all that they depend on; one that the
user names is checked only against its sidecar, and TensorRT itself rejects another GPU or version.
"""

from __future__ import annotations

import hashlib
import json
import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from agsr.engines.tensorrt.api import load_tensorrt
from agsr.engines.tensorrt.builder import build_engine
from agsr.engines.tensorrt.cuda import check_driver, current, open_cuda
from agsr.engines.tensorrt.options import BuildOptions, BuildReport
from agsr.engines.tensorrt.progress import Report
from agsr.errors import BackendError, BuildError, ModelError
from agsr.pretrained import require_file
from agsr.system.atomic_file import check_writable, complete_file
from agsr.system.text import in_words

FORMAT = "agsr-engine-file-1"
"""Value of the ``format`` key in a sidecar."""

_log = logging.getLogger(__name__)


def build_engine_file(
    model: Path,
    path: Path,
    options: BuildOptions,
    report: Report | None = None,
    timing_cache: Path | None = None,
    device: int | None = None,
) -> BuildReport:
    """Build an engine and write it with its sidecar; files appear only when complete.

    Args:
        model: ONNX file made by ``agsr export``.
        path: The engine file.
        options: How to build.
        report: Called with the progress; may cancel the build.
        timing_cache: File of measured layer times; TensorRT only.
        device: Number of the GPU to build on and for; None for the current one, which is the first
            one unless the caller has chosen another. None if there are targets.

    Raises:
        MissingDependencyError: TensorRT is not installed.
        BuildError: The engine can't be built, or no GPU and no target was given.
        ModelError: The file is missing or not a model of this project.
        OSError: A file can't be written; checked before the build.
    """
    require_file(model)
    for written in (path, _sidecar(path), *([timing_cache] if timing_cache else [])):
        check_writable(written)
    trt = load_tensorrt()
    if not options.targets:
        try:
            check_driver()
        except BackendError:
            raise BuildError(
                "there is no GPU here to build for; name one with --target, like --target sm89 "
                "(with TensorRT-RTX)"
            ) from None
    with nullcontext() if device is None else current(open_cuda(device)):
        content = model.read_bytes()
        engine, made = build_engine(trt, content, str(model), options, report, timing_cache)
    sidecar = {
        "format": FORMAT,
        "sha256": hashlib.sha256(engine).hexdigest(),
        "report": made.to_dict(),
    }
    if path.is_file():
        _log.warning("%s: replaced", path)
    with complete_file(path) as binary, complete_file(_sidecar(path)) as text:
        binary.write_bytes(engine)
        text.write_text(json.dumps(sidecar, indent=1), encoding="utf-8")
    return made


def read_engine(path: Path) -> tuple[bytes, dict[str, Any]]:
    """Read an engine file, and the ``report`` of its sidecar.

    Raises:
        ModelError: A file is missing, damaged, or belongs to another engine.
    """
    try:
        content = path.read_bytes()
        sidecar = json.loads(_sidecar(path).read_text(encoding="utf-8"))
        if sidecar["format"] != FORMAT or sidecar["sha256"] != hashlib.sha256(content).hexdigest():
            raise ModelError(f"{path}: not the engine that {_sidecar(path)} describes")
        report: dict[str, Any] = sidecar["report"]
        return content, report
    except OSError as error:
        raise ModelError(f"{error.filename}: {error.strerror}; 'agsr build' makes both") from None
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{_sidecar(path)}: can't be understood: {in_words(error)}") from None


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".json")
