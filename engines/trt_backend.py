"""The TensorRT backend: an engine from the cache, run with its copies overlapped.

Data flow of a batch: page-locked host buffer → device (copy-in stream) → engine (compute stream) →
page-locked host buffer (copy-out stream). Two slots of buffers take turns, so that while one batch
is computed the next is copied in and the one before is copied out.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agsr.backend import Backend, BackendInfo, Batch
from agsr.catalog import ENGINE_SUFFIX
from agsr.contract import CHANNELS, INPUT_NAME, OUTPUT_NAME, SCALE, ModelMetadata
from agsr.engines.cuda import Cuda, check_driver, open_cuda
from agsr.engines.engine_cache import EngineCache, EngineIdentity
from agsr.engines.engine_file import read_engine
from agsr.engines.trt_api import TensorRt, find_tensorrt, last_error, load_tensorrt
from agsr.engines.trt_builder import BuildOptions, Profile, Report, build_engine
from agsr.errors import BackendError, ModelError

SLOTS = 2
"""Batches that are under way at the same time."""

_FLOAT = 4


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
        profiles = tuple(
            Profile(*(tuple(profile[end]) for end in ("smallest", "best", "largest")))
            for profile in facts["options"]["profiles"]
        )
        metadata = ModelMetadata(**facts["metadata"])
        self._lock = Lock()
        with _current(self._cuda):
            self._pipeline = _Pipeline(trt, self._cuda, engine, profiles, str(path))
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
        with self._lock, _current(self._cuda):
            self._pipeline.release()

    def _run(self, lr: Batch) -> Batch:
        (sr,) = self._run_many([lr])
        return sr

    def _run_many(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        with self._lock, _current(self._cuda):
            yield from self._pipeline.run(batches)


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


class _Pipeline:
    """A loaded engine with its streams and slots."""

    def __init__(
        self, trt: TensorRt, cuda: Cuda, engine: bytes, profiles: tuple[Profile, ...], source: str
    ) -> None:
        self._cuda, self._profiles = cuda, profiles
        self._messages = trt.messages()
        self._engine: Any = trt.module.Runtime(self._messages).deserialize_cuda_engine(engine)
        if self._engine is None:
            reason = last_error(self._messages)
            raise BackendError(f"{source}: its engine can't be loaded: {reason}")
        self._context: Any = self._engine.create_execution_context()
        if self._context is None:
            raise BackendError(f"{source}: no memory for its engine: {last_error(self._messages)}")
        self._in, self._compute, self._out = (cuda.stream() for _ in range(3))
        self._slots = [_Slot(cuda) for _ in range(SLOTS)]

    def run(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Upscale batches in order, a slot for each that is under way."""
        free, busy = deque(self._slots), deque[tuple[_Slot, _Fitted]]()
        try:
            for lr in batches:
                if not free:
                    slot, fitted = busy.popleft()
                    free.append(slot)
                    yield self._collect(slot, fitted)
                busy.append((free[0], self._submit(free.popleft(), lr)))
            while busy:
                yield self._collect(*busy.popleft())
        finally:  # nobody wants the rest: let it end before its buffers are used again
            for slot, _ in busy:
                self._cuda.wait(slot.copied_out)

    def release(self) -> None:
        """Give everything on the GPU back; calling it twice is allowed."""
        for slot in self._slots:
            slot.release(self._cuda)
        self._context = self._engine = None

    def _submit(self, slot: _Slot, lr: Batch) -> _Fitted:
        """Start a batch in a free slot."""
        cuda, fitted = self._cuda, _fit(lr, self._profiles)
        count = math.prod(fitted.shape)
        slot.reserve(cuda, count)
        np.copyto(slot.host_in[:count].reshape(fitted.shape), fitted.padded)
        cuda.copy_in(slot.device_in, slot.host_in[:count], self._in)
        cuda.record(slot.copied_in, self._in)
        cuda.hold(self._compute, slot.copied_in)
        self._enqueue(slot, fitted)
        cuda.record(slot.computed, self._compute)
        cuda.hold(self._out, slot.computed)
        cuda.copy_out(slot.host_out[: count * SCALE**2], slot.device_out, self._out)
        cuda.record(slot.copied_out, self._out)
        return fitted

    def _enqueue(self, slot: _Slot, fitted: _Fitted) -> None:
        context, handle = self._context, self._cuda.handle(self._compute)
        if context.active_optimization_profile != fitted.profile:
            context.set_optimization_profile_async(fitted.profile, handle)
        done = (
            context.set_input_shape(INPUT_NAME, fitted.shape)
            and context.set_tensor_address(INPUT_NAME, slot.device_in)
            and context.set_tensor_address(OUTPUT_NAME, slot.device_out)
            and context.execute_async_v3(handle)
        )
        if not done:
            raise BackendError(
                f"TensorRT failed on an input of {fitted.shape}: {last_error(self._messages)}; "
                "if memory ran out, use a smaller --tile"
            )

    def _collect(self, slot: _Slot, fitted: _Fitted) -> Batch:
        """Wait for a slot's batch, and take it out without its padding."""
        self._cuda.wait(slot.copied_out)
        batch, channels, height, width = fitted.shape
        count = math.prod(fitted.shape) * SCALE**2
        sr = slot.host_out[:count].reshape(batch, channels, height * SCALE, width * SCALE)
        return np.array(sr[:, :, : fitted.height * SCALE, : fitted.width * SCALE])


@contextmanager
def _current(cuda: Cuda) -> Iterator[None]:
    """Make the GPU current in this thread for a while."""
    cuda.enter()
    try:
        yield
    finally:
        cuda.leave()


@dataclass(frozen=True)
class _Fitted:
    """A batch as an engine takes it."""

    padded: Batch
    profile: int
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.padded.shape


class _Slot:
    """Buffers and events of one batch under way; buffers grow, and are used again."""

    def __init__(self, cuda: Cuda) -> None:
        self.copied_in, self.computed, self.copied_out = (cuda.event() for _ in range(3))
        self.host_in: NDArray[np.float32] = np.empty(0, np.float32)
        self.host_out: NDArray[np.float32] = np.empty(0, np.float32)
        self.device_in = self.device_out = 0

    def reserve(self, cuda: Cuda, count: int) -> None:
        """Make room for an input of ``count`` values."""
        if count <= len(self.host_in):
            return
        self.release(cuda)
        self.host_in, self.host_out = cuda.pinned(count), cuda.pinned(count * SCALE**2)
        self.device_in = cuda.allocate(count * _FLOAT)
        self.device_out = cuda.allocate(count * SCALE**2 * _FLOAT)

    def release(self, cuda: Cuda) -> None:
        """Give the buffers back."""
        if not len(self.host_in):
            return
        for values in (self.host_in, self.host_out):
            cuda.unpin(values)
        for address in (self.device_in, self.device_out):
            cuda.free(address)
        self.host_in = self.host_out = np.empty(0, np.float32)


def _fit(lr: Batch, profiles: tuple[Profile, ...]) -> _Fitted:
    """Choose a profile for a batch, and enlarge what is too small for it by repeating edges."""
    batch, _, height, width = lr.shape
    fits = [
        (math.prod(size), index, size)
        for index, profile in enumerate(profiles)
        for size in [tuple(map(max, (batch, height, width), profile.smallest))]
        if size[0] == batch and profile.holds(size)
    ]
    if not fits:
        known = "; ".join(map(str, profiles))
        raise BackendError(
            f"an input of {batch}x{CHANNELS}x{height}x{width} is beyond the engine's profiles "
            f"({known}): use a smaller --tile"
        )
    _, index, (_, padded_height, padded_width) = min(fits)
    margins = ((0, 0), (0, 0), (0, padded_height - height), (0, padded_width - width))
    padded = np.pad(lr, margins, mode="edge") if any(map(any, margins)) else lr
    return _Fitted(padded, index, height, width)
