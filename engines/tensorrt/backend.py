"""The TensorRT backend: an engine from the cache or a file, run by `stream_pipeline`."""

from __future__ import annotations

import hashlib
import logging
import math
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock, get_ident
from typing import Any, TypeAlias

from agsr.backend import Backend, BackendInfo, Batch
from agsr.contract import ModelMetadata
from agsr.engines.tensorrt.api import TensorRt, find_tensorrt, load_tensorrt
from agsr.engines.tensorrt.builder import BuildOptions, BuildReport, Profile, build_engine
from agsr.engines.tensorrt.cuda import Cuda, check_driver, current, open_cuda
from agsr.engines.tensorrt.engine_cache import EngineCache, EngineIdentity
from agsr.engines.tensorrt.engine_file import read_engine
from agsr.engines.tensorrt.executor import Plan
from agsr.engines.tensorrt.kernel_cache import KernelFile
from agsr.engines.tensorrt.progress import Report
from agsr.engines.tensorrt.stream_pipeline import Pipeline
from agsr.errors import BackendError, BuildError, ModelError, UnknownWeightsError
from agsr.pretrained import ENGINE_SUFFIX, missing_file
from agsr.system.text import first_line, in_words

_log = logging.getLogger(__name__)

_Reading: TypeAlias = "weakref.ref[Generator[Batch, None, bool]]"

_STILL_READ = "results of this backend are still being read; close them first"


@contextmanager
def _memory_required() -> Iterator[None]:
    """Report a GPU without memory as a backend that can't be opened, so that others can."""
    try:
        yield
    except MemoryError as error:
        raise BackendError(
            f"no memory on the GPU ({first_line(error)}); nvidia-smi shows who uses it"
        ) from None


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
        device: Number of the GPU.

    Raises:
        MissingDependencyError: TensorRT or the GPU layer is not installed.
        BackendError: There is no GPU, or no memory on it, or the engine can't be loaded.
        BuildError: The engine can't be built.
        ModelError: The file is not a model of this project.
    """

    bytes_per_pixel = 500
    """Two inputs and outputs at a time; scratch memory was taken with the engine."""

    @_memory_required()
    def __init__(
        self,
        path: Path,
        *,
        options: BuildOptions | None = None,
        cache: EngineCache | None = None,
        report: Report | None = None,
        trt: TensorRt | None = None,
        cuda: Cuda | None = None,
        device: int = 0,
    ) -> None:
        if not path.is_file():
            raise UnknownWeightsError(missing_file(path))
        if trt is None:
            find_tensorrt()
        if cuda is None:
            check_driver()
        trt, cache = trt or load_tensorrt(), cache or EngineCache()
        self._cuda = cuda or _opened(device)
        if path.suffix == ENGINE_SUFFIX:
            engine, facts = read_engine(path)
        else:
            options = options or BuildOptions()
            engine, facts = _cached_engine(trt, self._cuda, path, options, cache, report)
        profiles, metadata, host_code = described(facts, path)
        _check_tf32(facts, metadata, path)
        plan = Plan(
            content=engine,
            source=str(path),
            profiles=profiles,
            host_code=host_code,
            kernels=_kernel_file(trt, self._cuda, engine, cache),
        )
        self._lock = Lock()
        self._owner: int | None = None  # the thread that has the turn
        self._reading: _Reading | None = None
        with current(self._cuda):
            self._pipeline = Pipeline(trt, self._cuda, plan)
        self._release = weakref.finalize(self, _release, self._cuda, self._pipeline)
        self.info = BackendInfo(
            name="trt",
            device=f"{_numbered(device)}{self._cuda.gpu} ({trt.flavour} {trt.version})",
            precision=metadata.precision,
            steps=metadata.steps,
            receptive_radius=metadata.receptive_radius,
            model=str(path),
            weights_hash=metadata.weights_hash,
            largest=max((p.largest[1:] for p in profiles), key=math.prod),
        )

    def close(self) -> None:
        """Release everything on the GPU; results that this thread has not read yet are lost.

        Raises:
            BackendError: It is called while a result is made, by what makes the batches.
        """
        results = None if self._reading is None else self._reading()
        if self._owner == get_ident() and results is not None:
            try:
                results.close()
            except ValueError:  # it is running
                raise BackendError(_STILL_READ) from None
        with self._lock:
            self._release()

    def free_memory(self) -> int:
        """See `agsr.backend.Backend.free_memory`."""
        with current(self._cuda):
            return self._cuda.free_memory()

    def bound_call(self, lr: Batch) -> Callable[[], object]:
        """See `agsr.backend.Backend.bound_call`; the input's memory is held until `close`."""
        with self._open_pipeline() as pipeline:
            run = pipeline.bound_call(lr)

        def guarded() -> None:
            with self._open_pipeline():
                run()

        return guarded

    def _run(self, lr: Batch) -> Batch:
        (sr,) = self._run_many([lr])
        return sr

    def _run_many(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        own: list[_Reading] = []
        results = self._results(batches, own)
        own.append(weakref.ref(results))
        if not (yield from results):
            raise BackendError(f"{self.info.model}: this backend was closed before its results")

    def _results(
        self, batches: Iterable[Batch], own: list[_Reading]
    ) -> Generator[Batch, None, bool]:
        """Results; True at their end, which `close` may prevent, to which ``own`` refers them.

        The GPU is current only while it is used here, not while others have the turn.
        """
        with self._turn() as pipeline:
            (self._reading,) = own
            results = pipeline.run(self._fetched(batches))
            try:
                while True:
                    self._owner = get_ident()  # another thread may read on
                    with current(self._cuda):
                        sr = next(results, None)
                    if sr is None:
                        return True
                    yield sr
            finally:
                with current(self._cuda):
                    results.close()

    def _fetched(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Batches, each fetched with the caller's GPU current."""
        iterator = iter(batches)
        while True:
            self._cuda.leave()
            try:
                lr = next(iterator, None)
            finally:
                self._cuda.enter()
            if lr is None:
                return
            yield lr

    @contextmanager
    def _turn(self) -> Iterator[Pipeline]:
        """The pipeline, for this thread alone."""
        if self._owner == get_ident():  # it would wait for itself
            raise BackendError(_STILL_READ)
        with self._lock:
            if not self._release.alive:
                raise BackendError(f"{self.info.model}: this backend is closed; open another")
            self._owner = get_ident()
            try:
                yield self._pipeline
            finally:
                self._owner = self._reading = None

    @contextmanager
    def _open_pipeline(self) -> Iterator[Pipeline]:
        """The pipeline, for this thread alone, with its GPU current."""
        with self._turn() as pipeline, current(self._cuda):
            yield pipeline


def _opened(device: int) -> Cuda:
    """The GPU, with a warning where its layer makes TensorRT slower."""
    cuda = open_cuda(device)
    if cuda.graphs is None:
        _log.warning(
            "%s has no CUDA graphs, so small images are slower; "
            "for them: pip install cuda-bindings",
            cuda.name,
        )
    return cuda


def _numbered(device: int) -> str:
    """The number of a GPU that is not the first."""
    return f"cuda:{device} " if device else ""


def _release(cuda: Cuda, pipeline: Pipeline) -> None:
    with current(cuda):
        pipeline.release()


def _kernel_file(trt: TensorRt, cuda: Cuda, engine: bytes, cache: EngineCache) -> KernelFile | None:
    """Where kernels for this engine are cached; TensorRT has them in the engine."""
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


def _cached_engine(
    trt: TensorRt,
    cuda: Cuda,
    path: Path,
    options: BuildOptions,
    cache: EngineCache,
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

    def build() -> tuple[bytes, BuildReport]:
        with current(cuda):  # TensorRT builds for the GPU that is current
            return build_engine(trt, onnx, str(path), options, report)

    return cache.get(identity, build)


def _check_tf32(facts: Mapping[str, Any], metadata: ModelMetadata, path: Path) -> None:
    """Warn of an fp32 engine that is not exact: earlier versions built all of them so."""
    if metadata.precision == "fp32" and facts.get("tf32") is not False:
        _log.warning("%s: this engine may compute in TF32; rebuild it with: agsr build", path)


def described(
    facts: Mapping[str, Any], path: Path
) -> tuple[tuple[Profile, ...], ModelMetadata, bool]:
    """The profiles and the metadata in an engine's sidecar, and whether it contains host code.

    Raises:
        ModelError: It can't be understood.
    """
    try:
        profiles = tuple(
            Profile(*(tuple(map(int, profile[end])) for end in ("smallest", "best", "largest")))  # type: ignore[arg-type]  # zip checks
            for profile in facts["options"]["profiles"]
        )
        properties = ModelMetadata(**facts["metadata"]).to_properties()
        host_code = facts["options"].get("version_compatible") is True
    except (AttributeError, BuildError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: its sidecar can't be understood: {in_words(error)}") from None
    if not profiles:
        raise ModelError(f"{path}: its sidecar can't be understood: no profile")
    return profiles, ModelMetadata.from_properties(properties, str(path)), host_code
