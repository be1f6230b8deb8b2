"""Run a loaded engine on addresses and shapes; repeated calls are replayed as CUDA graphs.

A captured graph is valid for one shape, one pair of addresses and an unchanged execution context,
so each graph has its own context. All contexts run on one stream, one after the other, and share
one block of scratch memory. TensorRT-RTX captures graphs itself; only a setting is needed.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from agsr.backend import is_out_of_memory
from agsr.contract import INPUT_NAME, OUTPUT_NAME
from agsr.engines.tensorrt.api import TensorRt, load_engine
from agsr.engines.tensorrt.cuda import Address, Cuda, Graphs
from agsr.engines.tensorrt.kernel_cache import KernelFile
from agsr.engines.tensorrt.options import Profile
from agsr.errors import BackendError

MAX_CALLS = 32
"""Calls that are remembered, with or without a graph: the nine shapes of tiles in two slots fit."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Call:
    """Everything that an execution depends on. Equal calls can be replayed."""

    profile: int
    """Index of the optimization profile."""
    shape: tuple[int, ...]
    """Shape of the input, ``(B, 3, H, W)``."""
    source: Address
    """Address of the input."""
    target: Address
    """Address of the output."""


@dataclass(frozen=True)
class _CapturedCall:
    graphs: Graphs
    graph: Any
    context: Any
    """Unchanged since the graph was captured."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A serialized engine and what is needed to run it."""

    content: bytes
    """The engine."""
    source: str
    """Name of its file, for messages."""
    profiles: tuple[Profile, ...]
    """Its optimization profiles."""
    scale: int
    """Output pixels per input pixel along each axis."""
    host_code: bool = False
    """Whether it is version-compatible, and therefore contains host code."""
    kernels: KernelFile | None = None
    """Cache of TensorRT-RTX's kernels, if any."""


class Executor:
    """A loaded engine with its own stream.

    Args:
        trt: TensorRT to use.
        cuda: CUDA layer to use; its context is current.
        plan: The engine.

    Raises:
        BackendError: The engine can't be loaded.
        MemoryError: There is not enough memory for its stream.
    """

    def __init__(self, trt: TensorRt, cuda: Cuda, plan: Plan) -> None:
        self._trt, self._cuda, self._plan = trt, cuda, plan
        self._messages = trt.messages()
        try:
            self._engine: Any = load_engine(trt, plan.content, host_code=plan.host_code)
        except BackendError as error:
            raise BackendError(f"{plan.source}: its engine can't be loaded: {error}") from None
        self._graphs = cuda.graphs if trt.flavour == "tensorrt" else None
        self._scratch = self._scratch_size = 0
        self._kernels: Any = None
        self._loaded_kernels = b""
        self._calls: OrderedDict[Call, _CapturedCall | None] = OrderedDict()
        with ExitStack() as undo:
            undo.callback(self._free_scratch)
            self._default_context = self._create_default_context()
            self.stream = cuda.create_stream()
            undo.pop_all()

    def _create_default_context(self) -> Any:
        """Create the context of calls that aren't captured."""
        if self._graphs is not None:
            self._allocate_scratch()
        started = self._messages.count
        context = self._new_context()
        if context is None:
            reason = self._messages.reason(started)
            raise BackendError(f"{self._plan.source}: no memory for its engine: {reason}")
        return context

    def enqueue(self, call: Call) -> None:
        """Start an execution. The second equal call is also captured; later ones are replayed.

        Raises:
            BackendError: TensorRT failed.
            MemoryError: Memory ran out.
        """
        known = self._calls.get(call)
        if known is not None:
            known.graphs.launch(known.graph, self.stream)
        elif self._graphs is not None and call in self._calls:
            known = self._execute_and_capture(self._graphs, call)
        else:
            self._execute(self._default_context, call)
        self._remember(call, known)

    def release(self) -> None:
        """Release everything on the GPU, where nothing may be running any more."""
        with ExitStack() as ending:  # last in, first out; if one fails, the rest is still released
            ending.callback(self._cuda.destroy_stream, self.stream)
            ending.callback(self._free_scratch)
            ending.callback(self._unload)
            ending.callback(self._save_kernels)
            for _ in self._calls:
                ending.callback(self._drop_oldest)
        self.stream = None

    def _unload(self) -> None:
        self._default_context = self._kernels = self._engine = None

    def _new_context(self) -> Any:
        """Create an execution context; return None if there is no memory for it."""
        module, engine = self._trt.module, self._engine
        if self._trt.flavour == "tensorrt-rtx":
            config = engine.create_runtime_config()
            config.cuda_graph_strategy = module.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            self._use_kernels(config)
            return engine.create_execution_context(config)
        if not self._scratch:
            return engine.create_execution_context()
        strategy = module.ExecutionContextAllocationStrategy.USER_MANAGED
        context = engine.create_execution_context(strategy)
        if context is not None:
            context.set_device_memory(self._scratch, self._scratch_size)
        return context

    def _use_kernels(self, config: Any) -> None:
        """Give TensorRT-RTX the cached kernels, and collect new ones."""
        if self._plan.kernels is None:
            return
        self._kernels = config.create_runtime_cache()
        self._loaded_kernels = self._plan.kernels.load()
        if self._loaded_kernels and not self._kernels.deserialize(self._loaded_kernels):
            _log.info("%s: unusable here; ignored", self._plan.kernels.path)
            self._kernels.reset()
        config.set_runtime_cache(self._kernels)

    def _save_kernels(self) -> None:
        """Cache the kernels if any were compiled."""
        if self._plan.kernels is None or self._kernels is None:
            return
        try:
            serialized = self._kernels.serialize()
        except RuntimeError as error:  # the rest must still be released
            _log.info("kernels are not cached: %s", error)
            return
        kernels = b"" if serialized is None else bytes(memoryview(serialized))
        if kernels and kernels != self._loaded_kernels:
            self._plan.kernels.save(kernels)

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
        started = self._messages.count
        if not (ready and context.execute_async_v3(self._cuda.handle(self.stream))):
            reason = self._messages.reason(started)
            error = BackendError(f"TensorRT failed on an input of {call.shape}: {reason}")
            raise MemoryError(reason) if is_out_of_memory(error) else error

    def _execute_and_capture(self, graphs: Graphs, call: Call) -> _CapturedCall | None:
        """Execute in a new context, which fixes its shapes, then capture the same call.

        If that fails, nothing is captured any more.
        """
        context = self._new_context()
        if context is None:
            _log.info("CUDA graphs are not available: no memory for another context")
            self._graphs = None
            self._execute(self._default_context, call)
            return None
        self._execute(context, call)
        try:
            graph = graphs.capture(self.stream, lambda: self._submit(context, call))
        except (BackendError, MemoryError) as error:
            _log.info("CUDA graphs are not available: %s", error)
            self._graphs = None
            # The context is in use, and is about to be destroyed.
            self._cuda.synchronize_stream(self.stream)
            return None
        return _CapturedCall(graphs, graph, context)

    def _remember(self, call: Call, captured: _CapturedCall | None) -> None:
        self._calls[call] = captured
        self._calls.move_to_end(call)
        if len(self._calls) > MAX_CALLS:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, captured = self._calls.popitem(last=False)
        if captured is not None:
            try:
                self._cuda.synchronize_stream(self.stream)  # it may be running
            finally:
                captured.graphs.destroy(captured.graph)

    def _allocate_scratch(self) -> None:
        self._scratch_size = max(self._engine.device_memory_size_v2, 1)
        try:
            self._scratch = self._cuda.allocate(self._scratch_size)
        except MemoryError as error:
            raise BackendError(f"{self._plan.source}: no memory for its engine: {error}") from None

    def _free_scratch(self) -> None:
        if self._scratch:
            self._cuda.free(self._scratch)
        self._scratch = 0
