"""GPU memory, streams, events and graphs: one small protocol, implemented by `cuda_layers`.

TensorRT executes on addresses and streams, which are created only here. Both layers use the
device's primary context, so torch may run in the same process. NVIDIA's cuda.bindings is preferred;
without it pycuda is used, which has no CUDA graphs.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from agsr.errors import BackendError, MissingDependencyError
from agsr.system.optional_import import install_command

Address = int
"""Address of device memory."""


class Graphs(Protocol):
    """CUDA graphs: work of a stream, captured once and launched again at little cost."""

    def capture(self, stream: Any, work: Callable[[], None]) -> Any:
        """Capture what ``work`` submits to a stream as a graph, without running it.

        Raises:
            BackendError: The work can't be captured. The stream is unchanged.
        """

    def launch(self, graph: Any, stream: Any) -> None:
        """Start a graph on a stream."""

    def destroy(self, graph: Any) -> None:
        """Destroy a graph, which must not be running."""


class Cuda(Protocol):
    """The part of CUDA that TensorRT needs. Streams and events are the layer's own objects."""

    name: str
    """``"pycuda"`` or ``"cuda.bindings"``."""
    gpu: str
    """Name of the GPU."""
    capability: str
    """Its compute capability, like ``"8.9"``."""
    driver: str
    """Newest CUDA version that its driver supports, like ``"13.0"``."""
    graphs: Graphs | None
    """CUDA graphs; None if the layer has none."""

    def activate(self) -> None:
        """Make the GPU's primary context current in this thread, until `deactivate`."""

    def deactivate(self) -> None:
        """Undo `activate`: restore the context that was current before, on whichever GPU."""

    def free_memory(self) -> int:
        """Return the bytes of free device memory."""

    def allocate(self, size: int) -> Address:
        """Allocate ``size`` bytes of device memory.

        Raises:
            MemoryError: There is not enough.
        """

    def free(self, address: Address) -> None:
        """Free device memory."""

    def allocate_pinned(self, count: int) -> NDArray[np.float32]:
        """Allocate ``count`` float32 values of page-locked host memory; see `free_pinned`.

        Raises:
            MemoryError: There is not enough.
        """

    def free_pinned(self, values: NDArray[np.float32]) -> None:
        """Free page-locked memory; the array must not be used again."""

    def create_stream(self) -> Any:
        """Create a stream that does not wait for the default one."""

    def destroy_stream(self, stream: Any) -> None:
        """Destroy a stream, on which nothing may be running."""

    def handle(self, stream: Any) -> int:
        """Return a stream's handle as a number, for TensorRT."""

    def synchronize_stream(self, stream: Any) -> None:
        """Wait on the host until a stream has finished its work."""

    def create_event(self) -> Any:
        """Create an event, without timing."""

    def destroy_event(self, event: Any) -> None:
        """Destroy an event."""

    def copy_to_device(self, target: Address, source: NDArray[np.float32], stream: Any) -> None:
        """Start a copy from page-locked host memory."""

    def copy_to_host(self, target: NDArray[np.float32], source: Address, stream: Any) -> None:
        """Start a copy to page-locked host memory."""

    def record_event(self, event: Any, stream: Any) -> None:
        """Record an event at this point of a stream."""

    def wait_event(self, stream: Any, event: Any) -> None:
        """Make a stream wait for an event; the host does not wait."""

    def synchronize_event(self, event: Any) -> None:
        """Wait on the host for an event."""


@contextmanager
def current(cuda: Cuda) -> Iterator[None]:
    """Make the GPU current in this thread inside the ``with`` block."""
    cuda.activate()
    try:
        yield
    finally:
        cuda.deactivate()


def open_cuda(index: int = 0) -> Cuda:
    """Open a GPU by the first CUDA layer that is installed.

    Args:
        index: Number of the GPU.

    Raises:
        BackendError: There is no NVIDIA driver or no such GPU.
        MissingDependencyError: Neither cuda.bindings nor pycuda is installed.
    """
    check_driver()
    # Imported here, because they implement the protocol of this module.
    from agsr.engines.tensorrt.cuda_layers import BindingsCuda, PyCuda

    if find_spec("cuda") and find_spec("cuda.bindings"):
        return BindingsCuda(index)
    if find_spec("pycuda"):
        return PyCuda(index)
    raise MissingDependencyError(
        f"the trt backend needs cuda.bindings or pycuda. Install one with: {install_command('rtx')}"
    )


def check_driver() -> None:
    """Check quickly, without large imports, that NVIDIA's driver is installed.

    Raises:
        BackendError: It is not.
    """
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        ctypes.CDLL(name)
    except OSError:
        raise BackendError(
            f"no NVIDIA driver here ({name} can't be loaded), so no GPU to run TensorRT on; "
            "install the driver, or use: --backend ort"
        ) from None
