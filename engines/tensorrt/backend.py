"""TensorRT backend: loads an engine by `engine_source` and runs it by `stream_pipeline`."""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock, get_ident
from typing import TypeAlias

from agsr.backend import Backend, BackendInfo, Batch
from agsr.contract import CHANNELS
from agsr.engines.onnx_file.checks import described, tile_align
from agsr.engines.tensorrt.api import TensorRt, find_tensorrt, load_tensorrt
from agsr.engines.tensorrt.cuda import Cuda, check_driver, current, open_cuda
from agsr.engines.tensorrt.engine_cache import EngineCache
from agsr.engines.tensorrt.engine_source import load_plan
from agsr.engines.tensorrt.executor import Plan
from agsr.engines.tensorrt.options import BuildOptions
from agsr.engines.tensorrt.progress import Report
from agsr.engines.tensorrt.stream_pipeline import Pipeline
from agsr.errors import BackendError
from agsr.pretrained import require_file
from agsr.system.text import first_line

_log = logging.getLogger(__name__)

_Reading: TypeAlias = "weakref.ref[Generator[Batch, None, bool]]"

_RESULTS_OPEN = "results of this backend are still being read; close them first"


@contextmanager
def _memory_required() -> Iterator[None]:
    """Translate MemoryError to BackendError, so that ``auto`` goes on to another backend."""
    try:
        yield
    except MemoryError as error:
        raise BackendError(
            f"no memory on the GPU ({first_line(error)}); nvidia-smi shows who uses it"
        ) from None


class TrtBackend(Backend):
    """Runs an ONNX file as a TensorRT engine, which is built at first use and cached.

    >>> with TrtBackend(Path("psnr.onnx")) as backend:  # doctest: +SKIP
    ...     sr = backend.upscale(lr)

    Args:
        path: ONNX file made by ``agsr export``, whose precision is the engine's; or an engine made
            by ``agsr build``. Engines are code: run only those you trust.
        options: How to build the engine; None means the defaults.
        cache: Cache of engines; None means the user's cache.
        report: Called with the progress of a build; may cancel it.
        trt: TensorRT to use; None means the installed one.
        cuda: CUDA layer to use; None means the installed one.
        device: Number of the GPU.
        content: ONNX graph to run instead of the file's; ``path`` then only names it.

    Raises:
        MissingDependencyError: TensorRT or the CUDA layer is not installed.
        BackendError: There is no GPU, or too little memory on it, or the engine can't be loaded.
        BuildError: The engine can't be built.
        ModelError: The file is not a model of this project.
    """

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
        content: bytes | None = None,
    ) -> None:
        require_file(path)
        if trt is None:
            find_tensorrt()
        if cuda is None:
            check_driver()
        trt, cache = trt or load_tensorrt(), cache or EngineCache()
        options = options or BuildOptions()
        self._cuda = cuda or _open_cuda(device)
        plan, metadata = load_plan(trt, self._cuda, path, options, cache, report, content)
        self._lock = Lock()
        self._owner: int | None = None  # the thread that holds the lock
        self._reading: _Reading | None = None
        with current(self._cuda):
            self._pipeline = Pipeline(trt, self._cuda, plan)
        # Two inputs and outputs at a time; scratch memory is allocated with the engine.
        self.bytes_per_pixel = 2 * 4 * CHANNELS * (1 + metadata.scale**2)
        self._release = weakref.finalize(self, _release, self._cuda, self._pipeline)
        self.info = BackendInfo(
            name="trt",
            device=f"{_device_prefix(device)}{self._cuda.gpu} ({trt.flavour} {trt.version})",
            precision=metadata.precision,
            model=str(path),
            **{
                **described(metadata),
                "largest": _largest(plan, metadata.sizes.multiple),
            },
        )
        self.sizes, self.tile_align = metadata.sizes, tile_align(metadata)

    def close(self) -> None:
        """Release everything on the GPU; results that this thread has not read yet are lost.

        Raises:
            BackendError: It is called by the iterable of batches while a result is computed.
        """
        results = None if self._reading is None else self._reading()
        if self._owner == get_ident() and results is not None:
            try:
                results.close()
            except ValueError:  # the generator is running
                raise BackendError(_RESULTS_OPEN) from None
        with self._lock:
            self._release()

    def free_memory(self) -> int:
        """See `agsr.backend.Backend.free_memory`."""
        with current(self._cuda):
            return self._cuda.free_memory()

    def bound_call(self, lr: Batch) -> Callable[[], object]:
        """See `agsr.backend.Backend.bound_call`; the input's memory is allocated until `close`."""
        with self._current_pipeline() as pipeline:
            run = pipeline.bound_call(lr)

        def guarded() -> None:
            with self._current_pipeline():
                run()

        return guarded

    def _run(self, lr: Batch) -> Batch:
        (sr,) = self._run_many([lr])
        return sr

    def _run_many(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        reference: list[_Reading] = []
        results = self._results(batches, reference)
        reference.append(weakref.ref(results))
        if not (yield from results):
            raise BackendError(f"{self.info.model}: this backend was closed before its results")

    def _results(
        self, batches: Iterable[Batch], reference: list[_Reading]
    ) -> Generator[Batch, None, bool]:
        """Yield results; return True at their end.

        `close` may end them early, through the one weak ``reference`` to this generator. The GPU is
        current only while it is used here, not while the caller's code runs.
        """
        with self._exclusive() as pipeline:
            (self._reading,) = reference
            results = pipeline.run(self._with_callers_gpu(batches))
            try:
                while True:
                    self._owner = get_ident()  # another thread may go on reading
                    with current(self._cuda):
                        sr = next(results, None)
                    if sr is None:
                        return True
                    yield sr
            finally:
                with current(self._cuda):
                    results.close()

    def _with_callers_gpu(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield batches, each made while the caller's GPU is current."""
        iterator = iter(batches)
        while True:
            self._cuda.deactivate()
            try:
                lr = next(iterator, None)
            finally:
                self._cuda.activate()
            if lr is None:
                return
            yield lr

    @contextmanager
    def _exclusive(self) -> Iterator[Pipeline]:
        """Lock the pipeline for this thread."""
        if self._owner == get_ident():  # waiting for the lock would never end
            raise BackendError(_RESULTS_OPEN)
        with self._lock:
            if not self._release.alive:
                raise BackendError(f"{self.info.model}: this backend is closed; open another")
            self._owner = get_ident()
            try:
                yield self._pipeline
            finally:
                self._owner = self._reading = None

    @contextmanager
    def _current_pipeline(self) -> Iterator[Pipeline]:
        """Lock the pipeline for this thread, with its GPU current."""
        with self._exclusive() as pipeline, current(self._cuda):
            yield pipeline


def _open_cuda(device: int) -> Cuda:
    """Open the GPU; warn if the installed CUDA layer makes TensorRT slower."""
    cuda = open_cuda(device)
    if cuda.graphs is None:
        _log.warning(
            "%s has no CUDA graphs, so small images are slower; "
            "for them: pip install cuda-bindings",
            cuda.name,
        )
    return cuda


def _largest(plan: Plan, multiple: int) -> tuple[int, int]:
    """Return the height and width of the largest input, in multiples of a number."""
    height, width = max((p.largest[1:] for p in plan.profiles), key=math.prod)
    return height // multiple * multiple, width // multiple * multiple


def _device_prefix(device: int) -> str:
    """Return ``cuda:N`` for any GPU but the first."""
    return f"cuda:{device} " if device else ""


def _release(cuda: Cuda, pipeline: Pipeline) -> None:
    with current(cuda):
        pipeline.release()
