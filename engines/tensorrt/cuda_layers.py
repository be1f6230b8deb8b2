"""Implementations of `agsr.engines.tensorrt.cuda.Cuda` by NVIDIA's ``cuda.bindings`` and pycuda."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agsr.engines.tensorrt.cuda import Address, Graphs
from agsr.engines.tensorrt.cuda_errors import NO_GPU, explain
from agsr.errors import BackendError
from agsr.system.text import first_line

_FLOAT = 4


class BindingsGraphs:
    """CUDA graphs by NVIDIA's ``cuda.bindings``.

    Args:
        runtime: The module ``cuda.bindings.runtime``.
    """

    def __init__(self, runtime: Any) -> None:
        self._rt = runtime

    def capture(self, stream: Any, work: Callable[[], None]) -> Any:
        # Other threads, like torch's, may keep using the device.
        mode = self._rt.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _value(self._rt.cudaStreamBeginCapture(stream, mode))
        try:
            work()
        except BaseException:
            _, unfinished = self._rt.cudaStreamEndCapture(stream)
            if unfinished is not None:
                _value(self._rt.cudaGraphDestroy(unfinished))
            raise
        graph = _value(self._rt.cudaStreamEndCapture(stream))
        try:
            return _value(self._rt.cudaGraphInstantiate(graph, 0))
        finally:
            _value(self._rt.cudaGraphDestroy(graph))

    def launch(self, graph: Any, stream: Any) -> None:
        _value(self._rt.cudaGraphLaunch(graph, stream))

    def destroy(self, graph: Any) -> None:
        _value(self._rt.cudaGraphExecDestroy(graph))


class BindingsCuda:
    """CUDA by NVIDIA's ``cuda.bindings``.

    Args:
        index: Number of the GPU.

    Raises:
        BackendError: There is no such GPU.
    """

    name = "cuda.bindings"

    def __init__(self, index: int = 0) -> None:
        from cuda.bindings import driver, runtime

        self._rt, self._driver = runtime, driver
        self.graphs: Graphs | None = BindingsGraphs(runtime)
        _check_index(index, _value(runtime.cudaGetDeviceCount()))
        properties = _value(runtime.cudaGetDeviceProperties(index))
        self.gpu = properties.name.decode()
        self.capability = f"{properties.major}.{properties.minor}"
        version = _value(runtime.cudaDriverGetVersion())
        self.driver = f"{version // 1000}.{version % 1000 // 10}"
        self._context = _primary_context(driver, index)

    def activate(self) -> None:
        # cudaSetDevice can't be undone without creating a context on the previously current GPU.
        _value(self._driver.cuCtxPushCurrent(self._context))

    def deactivate(self) -> None:
        _value(self._driver.cuCtxPopCurrent())

    def free_memory(self) -> int:
        return int(_value(self._rt.cudaMemGetInfo()))  # the first of (free, total)

    def allocate(self, size: int) -> Address:
        return int(_value(self._rt.cudaMalloc(size)))

    def free(self, address: Address) -> None:
        _value(self._rt.cudaFree(address))

    def allocate_pinned(self, count: int) -> NDArray[np.float32]:
        address = _value(self._rt.cudaMallocHost(count * _FLOAT))
        return np.ctypeslib.as_array((ctypes.c_float * count).from_address(int(address)))

    def free_pinned(self, values: NDArray[np.float32]) -> None:
        _value(self._rt.cudaFreeHost(values.ctypes.data))

    def create_stream(self) -> Any:
        return _value(self._rt.cudaStreamCreateWithFlags(self._rt.cudaStreamNonBlocking))

    def destroy_stream(self, stream: Any) -> None:
        _value(self._rt.cudaStreamDestroy(stream))

    def handle(self, stream: Any) -> int:
        return int(stream)

    def synchronize_stream(self, stream: Any) -> None:
        _value(self._rt.cudaStreamSynchronize(stream))

    def create_event(self) -> Any:
        return _value(self._rt.cudaEventCreateWithFlags(self._rt.cudaEventDisableTiming))

    def destroy_event(self, event: Any) -> None:
        _value(self._rt.cudaEventDestroy(event))

    def copy_to_device(self, target: Address, source: NDArray[np.float32], stream: Any) -> None:
        kind = self._rt.cudaMemcpyKind.cudaMemcpyHostToDevice
        source_address = source.ctypes.data
        _value(self._rt.cudaMemcpyAsync(target, source_address, source.nbytes, kind, stream))

    def copy_to_host(self, target: NDArray[np.float32], source: Address, stream: Any) -> None:
        kind = self._rt.cudaMemcpyKind.cudaMemcpyDeviceToHost
        target_address = target.ctypes.data
        _value(self._rt.cudaMemcpyAsync(target_address, source, target.nbytes, kind, stream))

    def record_event(self, event: Any, stream: Any) -> None:
        _value(self._rt.cudaEventRecord(event, stream))

    def wait_event(self, stream: Any, event: Any) -> None:
        _value(self._rt.cudaStreamWaitEvent(stream, event, 0))

    def synchronize_event(self, event: Any) -> None:
        _value(self._rt.cudaEventSynchronize(event))


class PyCuda:
    """CUDA by pycuda.

    Args:
        index: Number of the GPU.

    Raises:
        BackendError: There is no such GPU, or pycuda does not match the driver.
    """

    name = "pycuda"
    graphs: Graphs | None = None  # pycuda has no API for them

    def __init__(self, index: int = 0) -> None:
        try:
            import pycuda.driver
        except ImportError as error:
            raise BackendError(
                f"pycuda can't be loaded: {first_line(error)}; use: pip install cuda-bindings"
            ) from None
        self._cuda = pycuda.driver
        with self._translated_errors():
            self._cuda.init()
            _check_index(index, self._cuda.Device.count())
            device = self._cuda.Device(index)
            self._context = device.retain_primary_context()
            self.gpu = device.name()
            self.capability = ".".join(map(str, device.compute_capability()))
            version = self._cuda.get_driver_version()
        self.driver = f"{version // 1000}.{version % 1000 // 10}"
        self._memory: dict[Address, Any] = {}

    def activate(self) -> None:
        self._context.push()

    def deactivate(self) -> None:
        self._context.pop()

    def free_memory(self) -> int:
        free, _ = self._cuda.mem_get_info()
        return int(free)

    def allocate(self, size: int) -> Address:
        with self._translated_errors():
            memory = self._cuda.mem_alloc(size)
        self._memory[int(memory)] = memory
        return int(memory)

    def free(self, address: Address) -> None:
        self._memory.pop(address).free()

    def allocate_pinned(self, count: int) -> NDArray[np.float32]:
        with self._translated_errors():
            values: NDArray[np.float32] = self._cuda.pagelocked_empty(count, np.float32)
        return values

    def free_pinned(self, values: NDArray[np.float32]) -> None:
        values.base.free()  # type: ignore[union-attr]  # pycuda's own allocation

    def create_stream(self) -> Any:
        return self._cuda.Stream(flags=1)  # CU_STREAM_NON_BLOCKING

    def destroy_stream(self, stream: Any) -> None:
        pass  # destroyed with its object

    def handle(self, stream: Any) -> int:
        return int(stream.handle)

    def synchronize_stream(self, stream: Any) -> None:
        with self._translated_errors():
            stream.synchronize()

    def create_event(self) -> Any:
        return self._cuda.Event(self._cuda.event_flags.DISABLE_TIMING)

    def destroy_event(self, event: Any) -> None:
        pass  # destroyed with its object

    def copy_to_device(self, target: Address, source: NDArray[np.float32], stream: Any) -> None:
        self._cuda.memcpy_htod_async(target, source, stream)

    def copy_to_host(self, target: NDArray[np.float32], source: Address, stream: Any) -> None:
        self._cuda.memcpy_dtoh_async(target, source, stream)

    def record_event(self, event: Any, stream: Any) -> None:
        event.record(stream)

    def wait_event(self, stream: Any, event: Any) -> None:
        stream.wait_for_event(event)

    def synchronize_event(self, event: Any) -> None:
        with self._translated_errors():
            event.synchronize()

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Translate pycuda's errors. Asynchronous work raises its errors where it is waited for."""
        try:
            yield
        except self._cuda.MemoryError as error:
            raise MemoryError(first_line(error)) from None
        except (self._cuda.Error, RuntimeError) as error:  # cuInit fails with the latter
            raise BackendError(explain(f"CUDA: {first_line(error)}")) from None


@cache
def _primary_context(driver: Any, index: int) -> Any:
    """Retain a GPU's primary context until the process ends: other code in it may use it, too."""
    _value(driver.cuInit(0))
    return _value(driver.cuDevicePrimaryCtxRetain(_value(driver.cuDeviceGet(index))))


def _check_index(index: int, count: int) -> None:
    """Check that a GPU of this number exists.

    Raises:
        BackendError: It does not.
    """
    if count == 0:
        raise BackendError(NO_GPU)
    if index >= count:
        known = ", ".join(f"cuda:{number}" for number in range(count))
        raise BackendError(f"no GPU cuda:{index} here; known: {known}")


def _value(answer: tuple[Any, ...]) -> Any:
    """Return the value of cuda.bindings' ``(error, value)``; raise its error, if any.

    Raises:
        MemoryError: Memory ran out, so smaller inputs may fit.
        BackendError: Anything else.
    """
    error, *values = answer
    if error.name in ("cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY"):
        raise MemoryError(f"CUDA: {error.name}")
    if error != 0:
        raise BackendError(explain(f"CUDA: {error.name}"))
    return values[0] if values else None
