"""Run batches through an engine with overlapping copies.

Data flow of a batch: page-locked host buffer → device (copy-in stream) → engine (compute stream) →
page-locked host buffer (copy-out stream). Two slots of buffers alternate: while one batch is
computed, the next is copied in and the previous one is copied out.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agsr.backend import Batch
from agsr.contract import CHANNELS
from agsr.engines.tensorrt.api import TensorRt
from agsr.engines.tensorrt.cuda import Cuda
from agsr.engines.tensorrt.executor import Call, Executor, Plan
from agsr.engines.tensorrt.options import Profile
from agsr.errors import BackendError

SLOTS = 2
"""Batches in flight at the same time."""

_FLOAT = 4


class Pipeline:
    """A loaded engine with its streams and slots. The GPU's context must be current.

    Args:
        trt: TensorRT to use.
        cuda: CUDA layer to use.
        plan: The engine.

    Raises:
        BackendError: The engine can't be loaded.
        MemoryError: Memory ran out.
    """

    def __init__(self, trt: TensorRt, cuda: Cuda, plan: Plan) -> None:
        self._cuda, self._profiles, self._scale = cuda, plan.profiles, plan.scale
        self._open = True
        with ExitStack() as resources:
            self._executor = Executor(trt, cuda, plan)
            resources.callback(self._executor.release)
            self._in, self._out = self._stream(resources), self._stream(resources)
            self._slots = [_Slot(cuda, plan.scale, resources) for _ in range(SLOTS)]
            self._resources = resources.pop_all()

    def run(self, batches: Iterable[Batch]) -> Generator[Batch, None, None]:
        """Upscale batches in order, with one slot for each in flight.

        Raises:
            BackendError: A batch fits no profile, or the GPU failed.
            MemoryError: Memory ran out.
        """
        free, busy = deque(self._slots), deque[tuple[_Slot, _PaddedBatch]]()
        try:
            for lr in batches:
                if not free:
                    slot, fit = busy.popleft()
                    free.append(slot)
                    yield self._collect(slot, fit)
                busy.append((free[0], self._submit(free.popleft(), lr)))
            while busy:
                yield self._collect(*busy.popleft())
        finally:  # nothing may be in flight when the buffers are reused
            self._drain()

    def bound_call(self, lr: Batch) -> Callable[[], None]:
        """Return a call that runs the network on a batch in the device's memory and waits for it.

        It has its own slot, until `release`.

        Raises:
            BackendError: The batch fits no profile, or the GPU failed.
        """
        slot = _Slot(self._cuda, self._scale, self._resources)
        try:
            fit = self._submit(slot, lr)
        finally:
            self._drain()
        call = slot.call(fit)

        def run() -> None:
            self._executor.enqueue(call)
            self._cuda.synchronize_stream(self._executor.stream)

        return run

    def release(self) -> None:
        """Release everything on the GPU."""
        with ExitStack() as ending:  # if one fails, the rest is still released
            ending.callback(self._mark_closed)
            ending.callback(self._resources.close)
            self._drain()

    def _mark_closed(self) -> None:
        self._open = False
        self._slots, self._in, self._out = [], None, None

    def _stream(self, resources: ExitStack) -> Any:
        stream = self._cuda.create_stream()
        resources.callback(self._cuda.destroy_stream, stream)
        return stream

    def _drain(self) -> None:
        """Wait for all work; after `release` there is none."""
        streams = (self._out, self._executor.stream, self._in) if self._open else ()
        with ExitStack() as waiting:  # if one fails, the others are still waited for
            for stream in streams:
                waiting.callback(self._cuda.synchronize_stream, stream)

    def _submit(self, slot: _Slot, lr: Batch) -> _PaddedBatch:
        """Start a batch in a free slot."""
        cuda, fit = self._cuda, _pad_to_profile(lr, self._profiles)
        count, compute = math.prod(fit.shape), self._executor.stream
        slot.reserve(count)
        np.copyto(slot.host_in[:count].reshape(fit.shape), fit.padded)
        cuda.copy_to_device(slot.device_in, slot.host_in[:count], self._in)
        cuda.record_event(slot.copied_in, self._in)
        cuda.wait_event(compute, slot.copied_in)
        self._executor.enqueue(slot.call(fit))
        cuda.record_event(slot.computed, compute)
        cuda.wait_event(self._out, slot.computed)
        cuda.copy_to_host(slot.host_out[: count * self._scale**2], slot.device_out, self._out)
        cuda.record_event(slot.copied_out, self._out)
        return fit

    def _collect(self, slot: _Slot, fit: _PaddedBatch) -> Batch:
        """Wait for a slot's batch, and copy it without its padding."""
        self._cuda.synchronize_event(slot.copied_out)
        (batch, channels, height, width), scale = fit.shape, self._scale
        count = math.prod(fit.shape) * scale**2
        sr = slot.host_out[:count].reshape(batch, channels, height * scale, width * scale)
        return np.array(sr[:, :, : fit.height * scale, : fit.width * scale])


@dataclass(frozen=True)
class _PaddedBatch:
    """A batch padded to a size that a profile accepts."""

    padded: Batch
    profile: int
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.padded.shape


class _Slot:
    """Buffers and events of one batch in flight; buffers grow as needed and are reused.

    Args:
        cuda: CUDA layer to use.
        scale: Output pixels per input pixel along each axis.
        owner: Releases them when it is closed.
    """

    def __init__(self, cuda: Cuda, scale: int, owner: ExitStack) -> None:
        self._cuda, self._scale = cuda, scale
        self.copied_in, self.computed, self.copied_out = (self._event(owner) for _ in range(3))
        owner.callback(self._release)
        self._buffers = ExitStack()
        self._capacity = 0
        self.host_in: NDArray[np.float32] = np.empty(0, np.float32)
        self.host_out: NDArray[np.float32] = np.empty(0, np.float32)
        self.device_in = self.device_out = 0

    def reserve(self, count: int) -> None:
        """Allocate buffers for an input of ``count`` values; all of them or, on failure, none."""
        if count <= self._capacity:
            return
        self._release_buffers()
        output = count * self._scale**2
        with ExitStack() as made:
            self.host_in, self.host_out = self._pinned(made, count, output)
            self.device_in, self.device_out = self._device(made, count, output)
            self._buffers = made.pop_all()
        self._capacity = count

    def call(self, fit: _PaddedBatch) -> Call:
        """Describe the execution of a batch in these buffers."""
        return Call(fit.profile, fit.shape, self.device_in, self.device_out)

    def _event(self, owner: ExitStack) -> Any:
        event = self._cuda.create_event()
        owner.callback(self._cuda.destroy_event, event)
        return event

    def _release(self) -> None:
        self._release_buffers()
        self.copied_in = self.computed = self.copied_out = None

    def _release_buffers(self) -> None:
        self._capacity = 0
        self._buffers.close()
        self.host_in = self.host_out = np.empty(0, np.float32)

    def _pinned(self, made: ExitStack, *counts: int) -> Iterator[NDArray[np.float32]]:
        for count in counts:
            values = self._cuda.allocate_pinned(count)
            made.callback(self._cuda.free_pinned, values)
            yield values

    def _device(self, made: ExitStack, *counts: int) -> Iterator[int]:
        for count in counts:
            address = self._cuda.allocate(count * _FLOAT)
            made.callback(self._cuda.free, address)
            yield address


def _pad_to_profile(lr: Batch, profiles: tuple[Profile, ...]) -> _PaddedBatch:
    """Choose a profile for a batch; pad a batch that is too small by repeating its edges."""
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
            f"an input of {batch}x{CHANNELS}x{height}x{width} is outside the engine's profiles "
            f"({known}); use a smaller --tile"
        )
    _, index, (_, padded_height, padded_width) = min(fits)
    margins = ((0, 0), (0, 0), (0, padded_height - height), (0, padded_width - width))
    padded = np.pad(lr, margins, mode="edge") if any(map(any, margins)) else lr
    return _PaddedBatch(padded, index, height, width)
