"""The TensorRT backend: an engine from the cache or a file, run by `agsr.engines.trt_pipeline`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

from agsr.backend import Backend, BackendInfo, Batch
from agsr.catalog import ENGINE_SUFFIX
from agsr.contract import ModelMetadata
from agsr.engines.cuda import Cuda, check_driver, open_cuda
from agsr.engines.engine_cache import EngineCache, EngineIdentity
from agsr.engines.engine_file import read_engine
from agsr.engines.trt_api import TensorRt, find_tensorrt, load_tensorrt
from agsr.engines.trt_builder import BuildOptions, Profile, Report, build_engine
from agsr.engines.trt_pipeline import Pipeline
from agsr.errors import BackendError, BuildError, ModelError


class TrtBackend(Backend):
    """Runs an ONNX file as a TensorRT engine, built at first use and kept in the cache.

    Args:
        path: ONNX file made by ``agsr export``, whose precision is the engine's; or an engine made
            by ``agsr build``. Engines are code: run only those you trust.
        options: How to build the engine; None means the defaults.
        cache: Where engines are kept; None means the user's cache.
        report: Told about the progress of a build; may cancel it.
        trt: Which TensorRT; None means the installed one.
        cuda: Which GPU layer; None means the installed one.

    Raises:
        MissingDependencyError: TensorRT or the GPU layer is not installed.
        BackendError: There is no GPU, or the engine can't be loaded.
        BuildError: The engine can't be built.
        ModelError: The file is not a model of this project.
    """

    bytes_per_pixel = 500
    """Two inputs and outputs at a time; scratch memory was taken with the engine."""

    def __init__(
        self,
        path: Path,
        *,
        options: BuildOptions | None = None,
        cache: EngineCache | None = None,
        report: Report | None = None,
        trt: TensorRt | None = None,
        cuda: Cuda | None = None,
    ) -> None:
        if not path.is_file():
            raise ModelError(f"{path}: no such file")
        if trt is None:
            find_tensorrt()
        if cuda is None:
            check_driver()
        trt = trt or load_tensorrt()
        self._cuda = cuda or open_cuda()
        if path.suffix == ENGINE_SUFFIX:
            engine, facts = read_engine(path)
        else:
            options = options or BuildOptions()
            engine, facts = _cached_engine(trt, self._cuda, path, options, cache, report)
        profiles, metadata = described(facts, path)
        self._lock = Lock()
        with _current(self._cuda):
            self._pipeline: Pipeline | None = Pipeline(trt, self._cuda, engine, profiles, str(path))
        self.info = BackendInfo(
            name="trt",
            device=f"{self._cuda.gpu} ({trt.flavour} {trt.version})",
            precision=metadata.precision,
            steps=metadata.steps,
            receptive_radius=metadata.receptive_radius,
            model=str(path),
            weights_hash=metadata.weights_hash,
            largest=max((p.largest[1:] for p in profiles), key=math.prod),
        )

    def close(self) -> None:
        """Release everything on the GPU."""
        with self._lock:
            if self._pipeline is not None:
                with _current(self._cuda):
                    self._pipeline.release()
            self._pipeline = None

    def free_memory(self) -> int:
        """See `agsr.backend.Backend.free_memory`."""
        with _current(self._cuda):
            return self._cuda.free_memory()

    def resident(self, lr: Batch) -> Callable[[], object]:
        """See `agsr.backend.Backend.resident`; the input's memory is held until `close`."""
        with self._open_pipeline() as pipeline:
            run = pipeline.resident(lr)

        def guarded() -> None:
            with self._open_pipeline():
                run()

        return guarded

    def _run(self, lr: Batch) -> Batch:
        (sr,) = self._run_many([lr])
        return sr

    def _run_many(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        with self._open_pipeline() as pipeline:
            yield from pipeline.run(batches)

    @contextmanager
    def _open_pipeline(self) -> Iterator[Pipeline]:
        """The pipeline, for this thread alone, with its GPU current."""
        with self._lock, _current(self._cuda):
            if self._pipeline is None:
                raise BackendError(f"{self.info.model}: this backend is closed; open another")
            yield self._pipeline


def _cached_engine(
    trt: TensorRt,
    cuda: Cuda,
    path: Path,
    options: BuildOptions,
    cache: EngineCache | None,
    report: Report | None,
) -> tuple[bytes, dict[str, Any]]:
    """The engine of an ONNX file for this GPU, built at first use."""
    onnx = path.read_bytes()
    identity = EngineIdentity(
        onnx=hashlib.sha256(onnx).hexdigest(),
        options=options,
        flavour=trt.flavour,
        version=trt.version,
        gpu=cuda.gpu,
        capability=cuda.capability,
        driver=cuda.driver,
    )
    return (cache or EngineCache()).get(
        identity, lambda: build_engine(trt, onnx, str(path), options, report)
    )


def described(facts: Mapping[str, Any], path: Path) -> tuple[tuple[Profile, ...], ModelMetadata]:
    """The profiles and the metadata that a sidecar tells of its engine.

    Raises:
        ModelError: It can't be understood.
    """
    try:
        profiles = tuple(
            Profile(*(tuple(map(int, profile[end])) for end in ("smallest", "best", "largest")))  # type: ignore[arg-type]  # zip checks
            for profile in facts["options"]["profiles"]
        )
        properties = ModelMetadata(**facts["metadata"]).to_properties()
    except (BuildError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: what is told of it can't be understood: {error}") from None
    if not profiles:
        raise ModelError(f"{path}: what is told of it can't be understood: no profile")
    return profiles, ModelMetadata.from_properties(properties, str(path))


@contextmanager
def _current(cuda: Cuda) -> Iterator[None]:
    """Make the GPU current in this thread for a while."""
    cuda.enter()
    try:
        yield
    finally:
        cuda.leave()
