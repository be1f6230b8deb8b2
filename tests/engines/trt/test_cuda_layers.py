"""How the CUDA layers call what is below them; no GPU is needed."""

from __future__ import annotations

from typing import Any

import pytest
import tensorrt_rtx
from cuda.bindings import runtime

from agsr.engines.tensorrt import cuda, cuda_layers
from agsr.engines.tensorrt.cuda_layers import BindingsCuda, BindingsGraphs, PyCuda, _value
from agsr.errors import BackendError


class Runtime:
    """Stands in for ``cuda.bindings.runtime``: records every call, answers as configured."""

    cudaStreamCaptureMode = runtime.cudaStreamCaptureMode  # noqa: N815

    def __init__(self, **errors: runtime.cudaError_t) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self._errors = errors

    def __getattr__(self, name: str) -> Any:
        assert hasattr(runtime, name)
        error = self._errors.get(name, runtime.cudaError_t.cudaSuccess)
        values = {"cudaStreamEndCapture": "graph", "cudaGraphInstantiate": "executable"}

        def call(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append((name, *arguments))
            return (error, None if error else values.get(name))

        return call

    @property
    def names(self) -> list[str]:
        return [name for name, *_ in self.calls]


def test_a_graph_is_captured_for_this_thread_launched_and_destroyed() -> None:
    below = Runtime()
    graphs = BindingsGraphs(below)
    graph = graphs.capture("stream", lambda: below.calls.append(("work",)))
    graphs.launch(graph, "stream")
    graphs.destroy(graph)
    mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    assert below.calls == [
        ("cudaStreamBeginCapture", "stream", mode),
        ("work",),
        ("cudaStreamEndCapture", "stream"),
        ("cudaGraphInstantiate", "graph", 0),
        ("cudaGraphDestroy", "graph"),
        ("cudaGraphLaunch", "executable", "stream"),
        ("cudaGraphExecDestroy", "executable"),
    ]


def test_work_that_fails_ends_its_capture() -> None:
    below = Runtime()

    def fail() -> None:
        raise BackendError("TensorRT failed")

    with pytest.raises(BackendError, match="TensorRT failed"):
        BindingsGraphs(below).capture("stream", fail)
    assert below.names == ["cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphDestroy"]


@pytest.mark.parametrize("call", ["cudaStreamEndCapture", "cudaGraphInstantiate"])
def test_what_cannot_be_captured_is_a_backend_error_and_leaves_nothing(call: str) -> None:
    below = Runtime(**{call: runtime.cudaError_t.cudaErrorStreamCaptureUnsupported})
    with pytest.raises(BackendError, match="CUDA: cudaErrorStreamCaptureUnsupported"):
        BindingsGraphs(below).capture("stream", lambda: None)
    assert below.names.count("cudaGraphDestroy") == (call == "cudaGraphInstantiate")


def test_memory_that_runs_out_has_a_type_of_its_own() -> None:
    with pytest.raises(MemoryError, match="CUDA: cudaErrorMemoryAllocation"):
        _value((runtime.cudaError_t.cudaErrorMemoryAllocation, None))
    with pytest.raises(BackendError, match="CUDA: cudaErrorInvalidValue"):
        _value((runtime.cudaError_t.cudaErrorInvalidValue, None))
    assert _value((runtime.cudaError_t.cudaSuccess, 7)) == 7


@pytest.mark.parametrize(
    ("installed", "opened"),
    [
        ({"cuda", "cuda.bindings", "pycuda"}, "cuda.bindings"),
        ({"cuda", "cuda.bindings"}, "cuda.bindings"),
        ({"cuda", "pycuda"}, "pycuda"),  # other packages have the namespace, too
        ({"pycuda"}, "pycuda"),
    ],
)
def test_bindings_of_nvidia_come_before_pycuda(
    installed: set[str], opened: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "check_driver", lambda: None)
    monkeypatch.setattr(cuda, "find_spec", lambda name: name if name in installed else None)
    for layer in (BindingsCuda, PyCuda):
        monkeypatch.setattr(cuda_layers, layer.__name__, lambda _, name=layer.name: name)
    assert str(cuda.open_cuda()) == opened


def test_pycuda_does_without_graphs() -> None:
    assert PyCuda.graphs is None


@pytest.mark.parametrize(
    ("kind", "expected"), [("MemoryError", MemoryError), ("Error", BackendError)]
)
def test_errors_of_pycuda_become_ours(kind: str, expected: type[Exception]) -> None:
    class Below:
        """Stands in for ``pycuda.driver``."""

        Error = type("Error", (Exception,), {})
        MemoryError = type("MemoryError", (Error,), {})

        def fail(self, *_: object) -> None:
            raise getattr(self, kind)("cuMemAlloc failed\nmore")

        mem_alloc = pagelocked_empty = synchronize = fail

    layer, below = PyCuda.__new__(PyCuda), Below()
    layer._cuda = below
    for call in (layer.allocate, layer.allocate_pinned):
        with pytest.raises(expected, match=r"cuMemAlloc failed$"):
            call(8)
    for wait in (layer.synchronize_stream, layer.synchronize_event):
        with pytest.raises(expected, match=r"cuMemAlloc failed$"):
            wait(below)


def test_tensorrt_has_what_the_stand_in_offers() -> None:
    """TensorRT-RTX has the same interface as TensorRT, and can be imported without a GPU."""
    assert tensorrt_rtx.ExecutionContextAllocationStrategy.USER_MANAGED
    assert tensorrt_rtx.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    expected = {
        tensorrt_rtx.ICudaEngine: "device_memory_size_v2 create_runtime_config",
        tensorrt_rtx.IExecutionContext: "set_device_memory set_input_shape set_tensor_address "
        "execute_async_v3 active_optimization_profile set_optimization_profile_async",
        tensorrt_rtx.IRuntimeConfig: "cuda_graph_strategy create_runtime_cache set_runtime_cache",
        tensorrt_rtx.IRuntimeCache: "serialize deserialize reset",
        tensorrt_rtx.Runtime: "engine_host_code_allowed deserialize_cuda_engine",
    }
    for kind, names in expected.items():
        assert all(hasattr(kind, name) for name in names.split())
