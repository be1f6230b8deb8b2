"""Runs a loaded engine on addresses and shapes; what recurs is replayed as a CUDA graph.

TensorRT's graphs hold for one shape, one pair of addresses and an untouched execution context, so
each graph has a context of its own. All contexts run on one stream, one after the other, and share
one piece of scratch memory. TensorRT-RTX records graphs itself; it is only told to.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from agsr.backend import tells_of_memory
from agsr.contract import INPUT_NAME, OUTPUT_NAME
from agsr.engines.cuda import Address, Cuda, Graphs
from agsr.engines.trt_api import TensorRt, last_error
from agsr.errors import BackendError

MOST_CALLS = 32
"""Calls that are remembered, with or without a graph: the nine shapes of tiles in two slots fit."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Call:
    """What an execution depends on. Equal calls can be replayed."""

    profile: int
    """Index of the optimization profile."""
    shape: tuple[int, ...]
    """Of the input, ``(B, 3, H, W)``."""
    source: Address
    """Where the input is."""
    target: Address
    """Where the output goes."""


@dataclass(frozen=True)
class _Recorded:
    graphs: Graphs
    graph: Any
    context: Any
    """Kept as it was when the graph was recorded."""


class Executor:
    """A loaded engine on a stream of its own.

    Args:
        trt: Which TensorRT.
        cuda: Which GPU layer; its context is current.
        engine: Serialized engine.
        source: Its name, for messages.

    Raises:
        BackendError: The engine can't be loaded.
    """

    def __init__(self, trt: TensorRt, cuda: Cuda, engine: bytes, source: str) -> None:
        self._trt, self._cuda = trt, cuda
        self._messages = trt.messages()
        self._engine: Any = trt.module.Runtime(self._messages).deserialize_cuda_engine(engine)
        if self._engine is None:
            reason = last_error(self._messages)
            raise BackendError(f"{source}: its engine can't be loaded: {reason}")
        self._graphs = cuda.graphs if trt.flavour == "tensorrt" else None
        self._scratch = self._scratch_size = 0
        if self._graphs is not None:
            self._allocate_scratch(source)
        self._plain = self._new_context()
        if self._plain is None:
            self._free_scratch()
            raise BackendError(f"{source}: no memory for its engine: {last_error(self._messages)}")
        self._calls: OrderedDict[Call, _Recorded | None] = OrderedDict()
        self.stream = cuda.stream()

    def enqueue(self, call: Call) -> None:
        """Start an execution: plainly, at the second time recorded too, then replayed.

        Raises:
            BackendError: TensorRT failed.
            MemoryError: Memory ran out.
        """
        known = self._calls.get(call)
        if known is not None:
            known.graphs.launch(known.graph, self.stream)
        elif self._graphs is not None and call in self._calls:
            known = self._execute_and_record(self._graphs, call)
        else:
            self._execute(self._plain, call)
        self._remember(call, known)

    def release(self) -> None:
        """Give everything on the GPU back. Nothing may be under way."""
        while self._calls:
            self._drop_oldest()
        self._plain = self._engine = None
        self._free_scratch()
        self._cuda.destroy_stream(self.stream)
        self.stream = None

    def _new_context(self) -> Any:
        """An execution context, or None if there is no memory for it."""
        module, engine = self._trt.module, self._engine
        if self._trt.flavour == "tensorrt-rtx":
            config = engine.create_runtime_config()
            config.cuda_graph_strategy = module.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            return engine.create_execution_context(config)
        if not self._scratch:
            return engine.create_execution_context()
        strategy = module.ExecutionContextAllocationStrategy.USER_MANAGED
        context = engine.create_execution_context(strategy)
        if context is not None:
            context.set_device_memory(self._scratch, self._scratch_size)
        return context

    def _execute(self, context: Any, call: Call) -> None:
        handle = self._cuda.handle(self.stream)
        if context.active_optimization_profile != call.profile:
            context.set_optimization_profile_async(call.profile, handle)
        ready = (
            context.set_input_shape(INPUT_NAME, call.shape)
            and context.set_tensor_address(INPUT_NAME, call.source)
            and context.set_tensor_address(OUTPUT_NAME, call.target)
        )
        self._submit(context, call, ready)

    def _submit(self, context: Any, call: Call, ready: bool = True) -> None:
        if not (ready and context.execute_async_v3(self._cuda.handle(self.stream))):
            reason = last_error(self._messages)
            error = BackendError(f"TensorRT failed on an input of {call.shape}: {reason}")
            raise MemoryError(reason) if tells_of_memory(error) else error

    def _execute_and_record(self, graphs: Graphs, call: Call) -> _Recorded | None:
        """Execute in a new context, which settles its shapes, then record the same again.

        Whatever can't be recorded is executed plainly, from now on always.
        """
        context = self._new_context()
        if context is None:
            self._graphs = None
            self._execute(self._plain, call)
            return None
        self._execute(context, call)
        try:
            graph = graphs.capture(self.stream, lambda: self._submit(context, call))
        except (BackendError, MemoryError) as error:
            _log.debug("no CUDA graphs: %s", error)
            self._graphs = None
            self._cuda.sync(self.stream)  # the context is still at work, and goes
            return None
        return _Recorded(graphs, graph, context)

    def _remember(self, call: Call, recorded: _Recorded | None) -> None:
        self._calls[call] = recorded
        self._calls.move_to_end(call)
        if len(self._calls) > MOST_CALLS:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, recorded = self._calls.popitem(last=False)
        if recorded is not None:
            self._cuda.sync(self.stream)  # it may be under way
            recorded.graphs.destroy(recorded.graph)

    def _allocate_scratch(self, source: str) -> None:
        self._scratch_size = max(self._engine.device_memory_size_v2, 1)
        try:
            self._scratch = self._cuda.allocate(self._scratch_size)
        except MemoryError as error:
            raise BackendError(f"{source}: no memory for its engine: {error}") from None

    def _free_scratch(self) -> None:
        if self._scratch:
            self._cuda.free(self._scratch)
        self._scratch = 0
