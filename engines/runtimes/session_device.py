"""Where an ONNX Runtime session runs, for every backend that has one: its name and free memory.

ONNX Runtime reports neither the number of its GPU nor that GPU's free memory, so the latter is read
from CUDA.
"""

from __future__ import annotations

from functools import cached_property

from agsr.engines.runtimes.providers import PROVIDERS
from agsr.engines.tensorrt.cuda import Cuda, open_cuda
from agsr.errors import BackendError, MissingDependencyError


class SessionDevice:
    """The device of a session.

    >>> SessionDevice("cuda", 1).name, SessionDevice("dml", 1).name
    ('CUDAExecutionProvider cuda:1', 'DmlExecutionProvider dml:1')

    Args:
        provider: A key of `agsr.engines.runtimes.providers.PROVIDERS`.
        index: Number of the GPU, for a provider that has one.
    """

    def __init__(self, provider: str, index: int = 0) -> None:
        self._provider, self._index = PROVIDERS[provider], index
        self._kind = "cuda" if provider == "tensorrt-rtx" else provider

    @property
    def name(self) -> str:
        """Name of the provider, with the number of any GPU but the first."""
        return self._provider.ort_name + (f" {self._kind}:{self._index}" if self._index else "")

    def free_memory(self) -> int | None:
        """Return the GPU's free bytes; None without a GPU, or without a CUDA layer to ask."""
        if self._provider.memory != "cuda" or (cuda := self._cuda) is None:
            return None
        cuda.activate()
        try:
            return cuda.free_memory()
        finally:
            cuda.deactivate()

    @cached_property
    def _cuda(self) -> Cuda | None:
        try:
            return open_cuda(self._index)
        except (BackendError, MissingDependencyError, MemoryError):
            return None
