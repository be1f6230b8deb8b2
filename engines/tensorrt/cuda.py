"""GPU memory, streams, events and graphs: one small protocol, implemented by `cuda_layers`.

TensorRT executes on addresses and streams, and this is all that makes them. Both layers work in the
device's primary context, so torch may live in the same process. NVIDIA's cuda.bindings comes first;
pycuda is used without it, and has no CUDA graphs.
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
"""Of device memory."""


class Graphs(Protocol):
    """Work of a stream, recorded once and run again at little cost."""

    def capture(self, stream: Any, work: Callable[[], None]) -> Any:
        """Record what ``work`` submits to a stream, without running it, as a graph.

        Raises:
            BackendError: Something in it can't be recorded. The stream is as it was before.
        """

    def launch(self, graph: Any, stream: Any) -> None:
        """Run a graph, asynchronously."""

    def destroy(self, graph: Any) -> None:
        """Give a graph back, which may not be under way."""


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
    graphs: Graphs | None
    """CUDA graphs, where the layer has them."""

    def enter(self) -> None:
        """Make the GPU's primary context current in this thread, until `leave`."""

    def leave(self) -> None:
        """Undo `enter`: what was current before is current again, whichever GPU that is."""

    def free_memory(self) -> int:
        """Bytes of device memory that are free."""

    def allocate(self, size: int) -> Address:
        """Device memory of ``size`` bytes.

        Raises:
            MemoryError: There is not enough.
        """

    def free(self, address: Address) -> None:
        """Give device memory back."""

    def pinned(self, count: int) -> NDArray[np.float32]:
        """``count`` float32 values of page-locked host memory; freed by `unpin`.

        Raises:
            MemoryError: There is not enough.
        """

    def unpin(self, values: NDArray[np.float32]) -> None:
        """Give page-locked memory back; the array must not be used again."""

    def stream(self) -> Any:
        """A new stream that does not wait for the default one."""

    def destroy_stream(self, stream: Any) -> None:
        """Give a stream back, on which nothing may be under way."""

    def handle(self, stream: Any) -> int:
        """A stream as the number TensorRT takes."""

    def sync(self, stream: Any) -> None:
        """Wait on the host until a stream has done all its work."""

    def event(self) -> Any:
        """A new event, without timing."""

    def destroy_event(self, event: Any) -> None:
        """Give an event back."""

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


@contextmanager
def current(cuda: Cuda) -> Iterator[None]:
    """Make the GPU current in this thread for a while."""
    cuda.enter()
    try:
        yield
    finally:
        cuda.leave()


def open_cuda(index: int = 0) -> Cuda:
    """The first CUDA layer that is installed.

    Args:
        index: Number of the GPU.

    Raises:
        BackendError: There is no NVIDIA driver or no such GPU.
        MissingDependencyError: Neither cuda.bindings nor pycuda is installed.
    """
    check_driver()
    # Imported here, since they implement the protocol of this module.
    from agsr.engines.tensorrt.cuda_layers import BindingsCuda, PyCuda

    if find_spec("cuda") and find_spec("cuda.bindings"):
        return BindingsCuda(index)
    if find_spec("pycuda"):
        return PyCuda(index)
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
