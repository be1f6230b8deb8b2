"""Batches through an engine with their copies overlapped.

Data flow of a batch: page-locked host buffer → device (copy-in stream) → engine (compute stream) →
page-locked host buffer (copy-out stream). Two slots of buffers take turns, so that while one batch
is computed the next is copied in and the one before is copied out.
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
from agsr.contract import CHANNELS, SCALE
from agsr.engines.tensorrt.api import TensorRt
from agsr.engines.tensorrt.builder import Profile
from agsr.engines.tensorrt.cuda import Cuda
from agsr.engines.tensorrt.executor import Call, Executor, Plan
from agsr.errors import BackendError

SLOTS = 2
"""Batches that are under way at the same time."""

_FLOAT = 4


class Pipeline:
    """A loaded engine with its streams and slots. The GPU's context must be current.

    Args:
        trt: Which TensorRT.
        cuda: Which GPU layer.
        plan: The engine.

    Raises:
        BackendError: The engine can't be loaded.
        MemoryError: Memory ran out.
    """

    def __init__(self, trt: TensorRt, cuda: Cuda, plan: Plan) -> None:
        self._cuda, self._profiles = cuda, plan.profiles
        self._open = True
        with ExitStack() as made:
            self._executor = Executor(trt, cuda, plan)
            made.callback(self._executor.release)
            self._in, self._out = self._stream(made), self._stream(made)
            self._slots = [_Slot(cuda, made) for _ in range(SLOTS)]
            self._made = made.pop_all()

    def run(self, batches: Iterable[Batch]) -> Generator[Batch, None, None]:
        """Upscale batches in order, a slot for each that is under way.

        Raises:
            BackendError: A batch fits no profile, or the GPU failed.
            MemoryError: Memory ran out.
        """
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
        finally:  # whatever ended this, nothing may be under way when buffers are used again
            self._drain()

    def bound_call(self, lr: Batch) -> Callable[[], None]:
        """A call that executes on a batch that stays in the device's memory, and waits for it.

        Its slot is its own, until `release`.

        Raises:
            BackendError: The batch fits no profile, or the GPU failed.
        """
        slot = _Slot(self._cuda, self._made)
        try:
            fitted = self._submit(slot, lr)
        finally:
            self._drain()
        call = slot.call(fitted)

        def run() -> None:
            self._executor.enqueue(call)
            self._cuda.sync(self._executor.stream)

        return run

    def release(self) -> None:
        """Give everything on the GPU back."""
        with ExitStack() as ending:  # whatever fails, the rest is released
            ending.callback(self._forget)
            ending.callback(self._made.close)
            self._drain()

    def _forget(self) -> None:
        self._open = False
        self._slots, self._in, self._out = [], None, None

    def _stream(self, made: ExitStack) -> Any:
        stream = self._cuda.stream()
        made.callback(self._cuda.destroy_stream, stream)
        return stream

    def _drain(self) -> None:
        """Wait for all work; after `release` there is none."""
        streams = (self._out, self._executor.stream, self._in) if self._open else ()
        with ExitStack() as waiting:  # whichever fails, the others are waited for
            for stream in streams:
                waiting.callback(self._cuda.sync, stream)

    def _submit(self, slot: _Slot, lr: Batch) -> _Fitted:
        """Start a batch in a free slot."""
        cuda, fitted = self._cuda, _fit(lr, self._profiles)
        count, compute = math.prod(fitted.shape), self._executor.stream
        slot.reserve(count)
        np.copyto(slot.host_in[:count].reshape(fitted.shape), fitted.padded)
        cuda.copy_in(slot.device_in, slot.host_in[:count], self._in)
        cuda.record(slot.copied_in, self._in)
        cuda.hold(compute, slot.copied_in)
        self._executor.enqueue(slot.call(fitted))
        cuda.record(slot.computed, compute)
        cuda.hold(self._out, slot.computed)
        cuda.copy_out(slot.host_out[: count * SCALE**2], slot.device_out, self._out)
        cuda.record(slot.copied_out, self._out)
        return fitted

    def _collect(self, slot: _Slot, fitted: _Fitted) -> Batch:
        """Wait for a slot's batch, and take it out without its padding."""
        self._cuda.wait(slot.copied_out)
        batch, channels, height, width = fitted.shape
        count = math.prod(fitted.shape) * SCALE**2
        sr = slot.host_out[:count].reshape(batch, channels, height * SCALE, width * SCALE)
        return np.array(sr[:, :, : fitted.height * SCALE, : fitted.width * SCALE])


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
    """Buffers and events of one batch under way; buffers grow, and are used again.

    Args:
        cuda: Which GPU layer.
        owner: Gives all of it back when it is closed.
    """

    def __init__(self, cuda: Cuda, owner: ExitStack) -> None:
        self._cuda = cuda
        self.copied_in, self.computed, self.copied_out = (self._event(owner) for _ in range(3))
        owner.callback(self._release)
        self._buffers = ExitStack()
        self._room = 0
        self.host_in: NDArray[np.float32] = np.empty(0, np.float32)
        self.host_out: NDArray[np.float32] = np.empty(0, np.float32)
        self.device_in = self.device_out = 0

    def reserve(self, count: int) -> None:
        """Make room for an input of ``count`` values; without memory for all, keep none."""
        if count <= self._room:
            return
        self._release_buffers()
        with ExitStack() as made:
            self.host_in, self.host_out = self._pinned(made, count, count * SCALE**2)
            self.device_in, self.device_out = self._device(made, count, count * SCALE**2)
            self._buffers = made.pop_all()
        self._room = count

    def call(self, fitted: _Fitted) -> Call:
        """The execution of a batch in these buffers."""
        return Call(fitted.profile, fitted.shape, self.device_in, self.device_out)

    def _event(self, owner: ExitStack) -> Any:
        event = self._cuda.event()
        owner.callback(self._cuda.destroy_event, event)
        return event

    def _release(self) -> None:
        self._release_buffers()
        self.copied_in = self.computed = self.copied_out = None

    def _release_buffers(self) -> None:
        self._room = 0
        self._buffers.close()
        self.host_in = self.host_out = np.empty(0, np.float32)

    def _pinned(self, made: ExitStack, *counts: int) -> Iterator[NDArray[np.float32]]:
        for count in counts:
            values = self._cuda.pinned(count)
            made.callback(self._cuda.unpin, values)
            yield values

    def _device(self, made: ExitStack, *counts: int) -> Iterator[int]:
        for count in counts:
            address = self._cuda.allocate(count * _FLOAT)
            made.callback(self._cuda.free, address)
            yield address


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
