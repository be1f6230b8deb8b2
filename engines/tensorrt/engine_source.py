"""Get an engine ready to run: built or cached for an ONNX file, or read from an engine file.

Data flow: ``.onnx`` → `agsr.engines.tensorrt.engine_cache` (built at first use), or ``.engine`` →
`agsr.engines.tensorrt.engine_file`; then the build report → `Plan` for
`agsr.engines.tensorrt.stream_pipeline`, and `ModelMetadata`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agsr.contract import ModelMetadata
from agsr.engines.tensorrt.api import TensorRt
from agsr.engines.tensorrt.builder import build_engine
from agsr.engines.tensorrt.cuda import Cuda, current
from agsr.engines.tensorrt.engine_cache import EngineCache, EngineIdentity
from agsr.engines.tensorrt.engine_file import read_engine
from agsr.engines.tensorrt.executor import Plan
from agsr.engines.tensorrt.kernel_cache import KernelFile
from agsr.engines.tensorrt.options import BuildOptions, BuildReport, Profile
from agsr.engines.tensorrt.progress import Report
from agsr.errors import BuildError, ModelError
from agsr.pretrained import ENGINE_SUFFIX
from agsr.system.text import in_words

_log = logging.getLogger(__name__)


def load_plan(
    trt: TensorRt,
    cuda: Cuda,
    path: Path,
    options: BuildOptions,
    cache: EngineCache,
    report: Report | None = None,
    content: bytes | None = None,
) -> tuple[Plan, ModelMetadata]:
    """Load the engine of a file.

    Args:
        trt: TensorRT to build with.
        cuda: CUDA layer of the GPU that the engine is for.
        path: An ONNX file, whose engine is built at first use, or an engine file.
        options: How to build the engine of an ONNX file.
        cache: Cache of engines and kernels.
        report: Called with the progress of a build; may cancel it.
        content: ONNX graph to build instead of the file's; ``path`` then only names it.

    Raises:
        BuildError: The engine can't be built.
        ModelError: The file is not a model of this project, or its sidecar is damaged.
    """
    if path.suffix == ENGINE_SUFFIX:
        engine, facts = read_engine(path)
    else:
        onnx = path.read_bytes() if content is None else content
        engine, facts = _cached_engine(trt, cuda, onnx, str(path), options, cache, report)
    profiles, metadata, host_code = read_report(facts, path)
    _check_tf32(facts, metadata, path)
    plan = Plan(
        content=engine,
        source=str(path),
        profiles=profiles,
        scale=metadata.scale,
        host_code=host_code,
        kernels=_kernel_file(trt, cuda, engine, cache),
    )
    return plan, metadata


def read_report(
    facts: Mapping[str, Any], path: Path
) -> tuple[tuple[Profile, ...], ModelMetadata, bool]:
    """Read profiles and metadata from a sidecar's report, and whether the engine has host code.

    Raises:
        ModelError: The report is damaged.
    """
    try:
        profiles = tuple(
            Profile(*(tuple(map(int, profile[end])) for end in ("smallest", "best", "largest")))  # type: ignore[arg-type]  # zip checks
            for profile in facts["options"]["profiles"]
        )
        properties = ModelMetadata.from_dict(facts["metadata"]).to_properties()
        host_code = facts["options"].get("version_compatible") is True
    except (AttributeError, BuildError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: its sidecar can't be understood: {in_words(error)}") from None
    if not profiles:
        raise ModelError(f"{path}: its sidecar can't be understood: no profile")
    return profiles, ModelMetadata.from_properties(properties, str(path)), host_code


def _cached_engine(
    trt: TensorRt,
    cuda: Cuda,
    onnx: bytes,
    source: str,
    options: BuildOptions,
    cache: EngineCache,
    report: Report | None,
) -> tuple[bytes, dict[str, Any]]:
    """Return the engine of an ONNX file for this GPU, built at first use, and its report."""
    identity = EngineIdentity(
        onnx=hashlib.sha256(onnx).hexdigest(),
        options=options,
        flavour=trt.flavour,
        version=trt.version,
        gpu=cuda.gpu,
        capability=cuda.capability,
        driver=cuda.driver,
    )

    def build() -> tuple[bytes, BuildReport]:
        with current(cuda):  # TensorRT builds for the current GPU
            return build_engine(trt, onnx, source, options, report)

    return cache.get(identity, build)


def _kernel_file(trt: TensorRt, cuda: Cuda, engine: bytes, cache: EngineCache) -> KernelFile | None:
    """Return where this engine's kernels are cached; TensorRT has them in the engine itself."""
    if trt.flavour != "tensorrt-rtx":
        return None
    facts = {
        "engine": hashlib.sha256(engine).hexdigest(),
        "version": trt.version,
        "gpu": cuda.gpu,
        "capability": cuda.capability,
        "driver": cuda.driver,
    }
    return KernelFile(cache.folder, facts)


def _check_tf32(facts: Mapping[str, Any], metadata: ModelMetadata, path: Path) -> None:
    """Warn if an fp32 engine is not exact: earlier versions built all of them with TF32."""
    if metadata.precision == "fp32" and facts.get("tf32") is not False:
        _log.warning("%s: this engine may compute in TF32; rebuild it with: agsr build", path)
