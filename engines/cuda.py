"""GPU memory, streams and events: one small protocol, by pycuda or by NVIDIA's cuda.bindings.

TensorRT executes on addresses and streams, and this is all that makes them. Both layers work in the
device's primary context, so torch may live in the same process. The first that is installed is
taken, pycuda before cuda.bindings.
"""

from __future__ import annotations

import ctypes
import sys
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from agsr.errors import BackendError, MissingDependencyError
from agsr.optional import install_command

Address = int
"""Of device memory."""

_FLOAT = 4


class Cuda(Protocol):
    """What the TensorRT backend needs of CUDA. Streams and events are the layer's own objects."""

    name: str
    """``"pycuda"`` or ``"cuda.bindings"``."""
    gpu: str
    """Name of the GPU."""
    capability: str
    """Its compute capability, like ``"8.9"``."""
    driver: str
    """Newest CUDA version that its driver runs, like ``"13.0"``."""

    def enter(self) -> None:
        """Make the GPU's primary context current in this thread, until `leave`."""

    def leave(self) -> None:
        """Undo `enter`."""

    def allocate(self, size: int) -> Address:
        """Device memory of ``size`` bytes."""

    def free(self, address: Address) -> None:
        """Give device memory back."""

    def pinned(self, count: int) -> NDArray[np.float32]:
        """``count`` float32 values of page-locked host memory; freed by `unpin`."""

    def unpin(self, values: NDArray[np.float32]) -> None:
        """Give page-locked memory back; the array must not be used again."""

    def stream(self) -> Any:
        """A new stream that does not wait for the default one."""

    def handle(self, stream: Any) -> int:
        """A stream as the number TensorRT takes."""

    def event(self) -> Any:
        """A new event, without timing."""

    def copy_in(self, target: Address, source: NDArray[np.float32], stream: Any) -> None:
        """Copy from page-locked host memory, asynchronously."""

    def copy_out(self, target: NDArray[np.float32], source: Address, stream: Any) -> None:
        """Copy to page-locked host memory, asynchronously."""

    def record(self, event: Any, stream: Any) -> None:
        """Mark this point of a stream."""

    def hold(self, stream: Any, event: Any) -> None:
        """Let a stream wait for an event."""

    def wait(self, event: Any) -> None:
        """Wait for an event on the host."""


def open_cuda() -> Cuda:
    """The first CUDA layer that is installed, on the first GPU.

    Raises:
        BackendError: There is no NVIDIA driver or no GPU.
        MissingDependencyError: Neither pycuda nor cuda.bindings is installed.
    """
    check_driver()
    if find_spec("pycuda"):
        return _PyCuda()
    if find_spec("cuda") and find_spec("cuda.bindings"):
        return _CudaBindings()
    raise MissingDependencyError(
        f"the trt backend needs cuda.bindings or pycuda. Install one with: {install_command('rtx')}"
    )


def check_driver() -> None:
    """Find out at once, without importing anything large, whether NVIDIA's driver is there.

    Raises:
        BackendError: It isn't.
    """
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        ctypes.CDLL(name)
    except OSError:
        raise BackendError(
            f"no NVIDIA driver here ({name} can't be loaded), so no GPU to run TensorRT on; "
            "install the driver, or use: --backend ort"
        ) from None


class _CudaBindings:
    """CUDA by NVIDIA's ``cuda.bindings``."""

    name = "cuda.bindings"

    def __init__(self) -> None:
        from cuda.bindings import runtime

        self._rt = runtime
        if self._call(runtime.cudaGetDeviceCount()) == 0:
            raise BackendError("the NVIDIA driver is there, but it finds no GPU")
        properties = self._call(runtime.cudaGetDeviceProperties(0))
        self.gpu = properties.name.decode()
        self.capability = f"{properties.major}.{properties.minor}"
        version = self._call(runtime.cudaDriverGetVersion())
        self.driver = f"{version // 1000}.{version % 1000 // 10}"

    def enter(self) -> None:
        self._call(self._rt.cudaSetDevice(0))  # the runtime works in the primary context

    def leave(self) -> None:
        pass

    def allocate(self, size: int) -> Address:
        return int(self._call(self._rt.cudaMalloc(size)))

    def free(self, address: Address) -> None:
        self._call(self._rt.cudaFree(address))

    def pinned(self, count: int) -> NDArray[np.float32]:
        address = self._call(self._rt.cudaMallocHost(count * _FLOAT))
        return np.ctypeslib.as_array((ctypes.c_float * count).from_address(int(address)))

    def unpin(self, values: NDArray[np.float32]) -> None:
        self._call(self._rt.cudaFreeHost(values.ctypes.data))

    def stream(self) -> Any:
        return self._call(self._rt.cudaStreamCreateWithFlags(self._rt.cudaStreamNonBlocking))

    def handle(self, stream: Any) -> int:
        return int(stream)

    def event(self) -> Any:
        return self._call(self._rt.cudaEventCreateWithFlags(self._rt.cudaEventDisableTiming))

    def copy_in(self, target: Address, source: NDArray[np.float32], stream: Any) -> None:
        kind = self._rt.cudaMemcpyKind.cudaMemcpyHostToDevice
        source_address = source.ctypes.data
        self._call(self._rt.cudaMemcpyAsync(target, source_address, source.nbytes, kind, stream))

    def copy_out(self, target: NDArray[np.float32], source: Address, stream: Any) -> None:
        kind = self._rt.cudaMemcpyKind.cudaMemcpyDeviceToHost
        target_address = target.ctypes.data
        self._call(self._rt.cudaMemcpyAsync(target_address, source, target.nbytes, kind, stream))

    def record(self, event: Any, stream: Any) -> None:
        self._call(self._rt.cudaEventRecord(event, stream))

    def hold(self, stream: Any, event: Any) -> None:
        self._call(self._rt.cudaStreamWaitEvent(stream, event, 0))

    def wait(self, event: Any) -> None:
        self._call(self._rt.cudaEventSynchronize(event))

    def _call(self, answer: tuple[Any, ...]) -> Any:
        """The value of an answer ``(error, value)``; an error becomes an exception."""
        error, *values = answer
        if error != self._rt.cudaError_t.cudaSuccess:
            raise BackendError(f"CUDA: {error.name}")
        return values[0] if values else None


class _PyCuda:
    """CUDA by pycuda."""

    name = "pycuda"

    def __init__(self) -> None:
        import pycuda.driver

        self._cuda = pycuda.driver
        self._cuda.init()
        if self._cuda.Device.count() == 0:
            raise BackendError("the NVIDIA driver is there, but it finds no GPU")
        device = self._cuda.Device(0)
        self._context = device.retain_primary_context()
        self._memory: dict[Address, Any] = {}
        self.gpu = device.name()
        self.capability = ".".join(map(str, device.compute_capability()))
        version = self._cuda.get_driver_version()
        self.driver = f"{version // 1000}.{version % 1000 // 10}"

    def enter(self) -> None:
        self._context.push()

    def leave(self) -> None:
        self._context.pop()

    def allocate(self, size: int) -> Address:
        memory = self._cuda.mem_alloc(size)
        self._memory[int(memory)] = memory
        return int(memory)

    def free(self, address: Address) -> None:
        self._memory.pop(address).free()

    def pinned(self, count: int) -> NDArray[np.float32]:
        values: NDArray[np.float32] = self._cuda.pagelocked_empty(count, np.float32)
        return values

    def unpin(self, values: NDArray[np.float32]) -> None:
        values.base.free()  # type: ignore[union-attr]  # pycuda's own allocation

    def stream(self) -> Any:
        return self._cuda.Stream(flags=1)  # CU_STREAM_NON_BLOCKING

    def handle(self, stream: Any) -> int:
        return int(stream.handle)

    def event(self) -> Any:
        return self._cuda.Event(self._cuda.event_flags.DISABLE_TIMING)

    def copy_in(self, target: Address, source: NDArray[np.float32], stream: Any) -> None:
        self._cuda.memcpy_htod_async(target, source, stream)

    def copy_out(self, target: NDArray[np.float32], source: Address, stream: Any) -> None:
        self._cuda.memcpy_dtoh_async(target, source, stream)

    def record(self, event: Any, stream: Any) -> None:
        event.record(stream)

    def hold(self, stream: Any, event: Any) -> None:
        stream.wait_for_event(event)

    def wait(self, event: Any) -> None:
        event.synchronize()
