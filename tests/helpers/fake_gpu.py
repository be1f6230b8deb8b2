"""Fake GPU and TensorRT that run streams in the most adverse order that CUDA allows.

Streams are queues; nothing runs until the host waits, and then the newest work runs first, unless
it waits for an event. A missing dependency shows as a wrong picture. Using an object after its
release, or replaying a graph under other conditions than at its capture, is an error.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agsr.errors import BackendError

Work = Callable[[], None]


class Event:
    def __init__(self) -> None:
        self.done = True


@dataclass
class Item:
    """A piece of work in a stream."""

    work: Work = lambda: None
    uses: frozenset[int] = frozenset()
    """Addresses of host and device memory."""
    waits_for: Event | None = None
    completes: Event | None = None


class FakeCuda:
    """Memory, and streams whose work runs late and in an awkward order."""

    name, gpu, capability, driver = "fake", "Fake GPU", "8.9", "13.0"

    def __init__(self) -> None:
        self.memory: dict[int, NDArray[np.float32]] = {}
        self.streams: dict[int, deque[Item]] = {}
        self.events: set[Event] = set()
        self.graphs: FakeGraphs | None = FakeGraphs(self)
        self.pinned_arrays = self.depth = self.most_under_way = self.made = 0
        self.memory_left = 1 << 40

    def activate(self) -> None:
        self.depth += 1

    def deactivate(self) -> None:
        self.depth -= 1

    def free_memory(self) -> int:
        assert self.depth, "no context is current"
        return self.memory_left

    def allocate(self, size: int) -> int:
        if size > self.memory_left:
            raise MemoryError("CUDA: cudaErrorMemoryAllocation")
        self.made += 1
        self.memory[self.made << 20] = np.full(max(size // 4, 1), np.nan, np.float32)
        return self.made << 20

    def free(self, address: int) -> None:
        self._check_unused(address)
        self.memory.pop(address)

    def allocate_pinned(self, count: int) -> NDArray[np.float32]:
        self.pinned_arrays += 1
        return np.full(count, np.nan, np.float32)

    def free_pinned(self, values: NDArray[np.float32]) -> None:
        self._check_unused(values.ctypes.data)
        self.pinned_arrays -= 1
        values.fill(np.nan)

    def create_stream(self) -> int:
        self.made += 1
        self.streams[self.made] = deque()
        return self.made

    def destroy_stream(self, stream: int) -> None:
        assert not self.streams.pop(stream), "work is under way"

    def handle(self, stream: int) -> int:
        return stream

    def create_event(self) -> Event:
        event = Event()
        self.events.add(event)
        return event

    def destroy_event(self, event: Event) -> None:
        self.events.remove(event)

    def push(self, stream: int, work: Work, *uses: int) -> None:
        assert self.depth, "no context is current"
        recording = None if self.graphs is None else self.graphs.recording
        items = self.streams[stream] if recording is None else recording
        items.append(Item(work, frozenset(uses)))

    def copy_to_device(self, target: int, source: NDArray[np.float32], stream: int) -> None:
        self.push(stream, lambda: self._assign(target, source), target, source.ctypes.data)

    def _assign(self, target: int, source: NDArray[np.float32]) -> None:
        self.memory[target][: source.size] = source

    def copy_to_host(self, target: NDArray[np.float32], source: int, stream: int) -> None:
        copy = lambda: np.copyto(target, self.memory[source][: target.size])  # noqa: E731
        self.push(stream, copy, source, target.ctypes.data)

    def record_event(self, event: Event, stream: int) -> None:
        assert event in self.events
        event.done = False
        self.streams[stream].append(Item(completes=event))

    def wait_event(self, stream: int, event: Event) -> None:
        self.streams[stream].append(Item(waits_for=event))

    def synchronize_event(self, event: Event) -> None:
        newest = list(self.streams.values())[-1]
        self.most_under_way = max(self.most_under_way, len(newest) // 3)
        self._run_until(lambda: event.done)

    def synchronize_stream(self, stream: int) -> None:
        self._run_until(lambda: not self.streams[stream])

    def _run_until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            queues = reversed(self.streams.values())
            ready = [q for q in queues if q and (not (e := q[0].waits_for) or e.done)]
            assert ready, "the streams wait for each other"
            item = ready[0].popleft()
            item.work()
            if item.completes is not None:
                item.completes.done = True

    def _check_unused(self, address: int) -> None:
        used = {use for items in self.streams.values() for item in items for use in item.uses}
        assert address not in used, "memory is freed while it is used"


class FakeGraphs:
    """Captured work."""

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda
        self.recording: deque[Item] | None = None
        self.graphs: dict[int, deque[Item]] = {}
        self.launched: list[int] = []
        self.refuses = False

    def capture(self, _stream: int, work: Work) -> int:
        self.recording = recorded = deque[Item]()
        try:
            work()
        finally:
            self.recording = None
        if self.refuses:
            raise BackendError("CUDA: cudaErrorStreamCaptureUnsupported")
        self.graphs[id(recorded)] = recorded
        return id(recorded)

    def launch(self, graph: int, stream: int) -> None:
        self.launched.append(graph)
        self.cuda.streams[stream].extend(self.graphs[graph])

    def destroy(self, graph: int) -> None:
        del self.graphs[graph]


class FakeContext:
    """Repeats pixels; reads its settings at the time of execution, as TensorRT does."""

    def __init__(self, engine: FakeEngine, scratch: bool) -> None:
        self.engine, self.cuda = engine, engine.cuda
        self.addresses = dict[str, int]()
        self.shape: tuple[int, ...] = ()
        self.active_optimization_profile = 0
        self.changes = self.settled = 0
        self.scratch: tuple[int, int] | None = None if scratch else (0, 0)

    def set_device_memory(self, address: int, size: int) -> None:
        assert size >= self.engine.device_memory_size_v2
        self.scratch = (address, size)

    def set_optimization_profile_async(self, index: int, _stream: int) -> None:
        self.changes += 1
        self.active_optimization_profile = index

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == "lr"
        self.changes += 1
        self.shape = tuple(shape)
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.changes += 1
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert self.scratch is not None, "no scratch memory was set"
        self.engine.shapes.append(self.shape)
        self.engine.compile(self.shape)
        graphs = self.cuda.graphs
        recorded = graphs is not None and graphs.recording is not None
        assert not recorded or self.settled == self.changes, "recorded before shapes were settled"
        self.settled = self.changes
        self.cuda.push(stream, self._work(recorded), *self.addresses.values(), self.scratch[0])
        return not self.engine.fails

    def _work(self, recorded: bool) -> Work:
        source, target, shape = self.addresses["lr"], self.addresses["sr"], self.shape
        changes = self.changes

        def work() -> None:
            assert not recorded or changes == self.changes, "a graph's context was changed"
            lr = self.cuda.memory[source][: int(np.prod(shape))].reshape(shape)
            scale = self.engine.scale
            sr = lr.repeat(scale, 2).repeat(scale, 3).ravel()
            self.cuda.memory[target][: sr.size] = sr

        return work


class FakeKernels:
    """TensorRT-RTX's runtime cache: a line of text for each shape whose kernels are compiled."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.read: list[bytes] = []

    def deserialize(self, content: bytes) -> bool:
        self.read.append(content)
        self.lines = content.splitlines()
        return content.startswith(b"kernel")

    def reset(self) -> None:
        self.lines = []

    def serialize(self) -> bytes:
        return b"\n".join(self.lines)


class FakeRuntimeConfig:
    """How TensorRT-RTX runs an engine."""

    cuda_graph_strategy = "disabled"

    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine

    def create_runtime_cache(self) -> FakeKernels:
        return FakeKernels()

    def set_runtime_cache(self, kernels: FakeKernels) -> None:
        self._engine.kernels = kernels


class FakeEngine:
    """Creates contexts, and records every execution."""

    device_memory_size_v2 = 1000

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda
        self.scale = 4
        self.contexts: list[FakeContext] = []
        self.asked: list[Any] = []
        self.shapes: list[tuple[int, ...]] = []
        self.fails = False
        self.most_contexts = 1000
        self.kernels: FakeKernels | None = None
        self.host_code_allowed = False
        self.compiled = 0

    def create_runtime_config(self) -> Any:
        return FakeRuntimeConfig(self)

    def compile(self, shape: tuple[int, ...]) -> None:
        kernel = f"kernel {shape}".encode()
        if self.kernels is not None and kernel not in self.kernels.lines:
            self.compiled += 1
            self.kernels.lines.append(kernel)

    def create_execution_context(self, how: Any = None) -> FakeContext | None:
        if len(self.contexts) >= self.most_contexts:
            return None
        self.asked.append(how)
        self.contexts.append(FakeContext(self, how == "user managed"))
        return self.contexts[-1]


def fake_module(engine: FakeEngine) -> Any:
    """The part of TensorRT's module that the backend uses; its only engine is ``b"engine"``."""

    class Runtime:
        def __init__(self, _: Any) -> None:
            self.engine_host_code_allowed = False

        def deserialize_cuda_engine(self, content: bytes) -> FakeEngine:
            assert content == b"engine"
            engine.host_code_allowed = self.engine_host_code_allowed
            return engine

    return SimpleNamespace(
        __version__="11.4",
        Runtime=Runtime,
        ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="user managed"),
        CudaGraphStrategy=SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole graph"),
    )
