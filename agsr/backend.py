"""The one protocol all backends keep: a batch of LR arrays in, a batch of SR arrays out.

`Backend.upscale` holds the checks; a backend writes `Backend._run` alone. The `Upscaler` and the
benchmark know nothing else, so every backend is driven and measured in the same way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from agsr.contract import CHANNELS, SCALE, told_steps
from agsr.errors import BackendError, first_line
from agsr.tiling import AUTO_AREA

_B = TypeVar("_B", bound="Backend")

_NO_MEMORY = ("out of memory", "bad_alloc", "failed to allocate", "can't allocate memory")

Batch = NDArray[np.float32]
"""``(B, 3, H, W)`` float32, RGB, nominal range [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class BackendInfo:
    """What really runs."""

    name: str
    """``"torch"``, ``"ort"``, ``"openvino"`` or ``"trt"``."""
    device: str
    """Device or execution provider that was got, not the one that was asked for."""
    precision: str
    """Arithmetic inside the network."""
    steps: int | None
    """Time steps of the recurrent attention loop; None for a foreign network, which has none."""
    receptive_radius: int | None
    """LR pixels to each side that an output pixel depends on: the halo of exact tiling. None where
    a foreign network does not tell."""
    model: str
    """Name or path of the weights."""
    weights_hash: str
    """SHA-256 of the weights, equal for all backends and precisions of one checkpoint."""
    largest: tuple[int, int] | None = None
    """Height and width of the largest input, LR pixels; None means no limit but memory."""
    reason: str = "asked for"
    """Why this one runs."""

    @property
    def summary(self) -> str:
        """What runs, in a few words: ``ort (CPUExecutionProvider), 4 steps, fp32``."""
        steps = "" if self.steps is None else f"{told_steps(self.steps)}, "
        return f"{self.name} ({self.device}), {steps}{self.precision}"


class Backend(ABC):
    """A loaded network, ready to run. Use as a context manager, or call `close`."""

    info: BackendInfo
    """Set by the constructor of each backend."""

    bytes_per_pixel: int = 10_000
    """Memory at work per LR pixel of an input, measured where a backend tells another figure. By it
    ``--tile auto`` chooses tiles."""

    tile_area: int = AUTO_AREA
    """Pixels of the largest tile that ``--tile auto`` cuts; larger are slower."""

    def upscale(self, lr: Batch) -> Batch:
        """Upscale a batch.

        Args:
            lr: ``(B, 3, H, W)`` float32 RGB, nominal range [0, 1].

        Returns:
            ``(B, 3, 4H, 4W)`` float32 RGB, not clipped.

        Raises:
            BackendError: The input has another shape or type, or the output isn't finite.
            MemoryError: Memory ran out; a smaller input may fit.
        """
        (sr,) = self.upscale_many([lr])
        return sr

    def upscale_many(self, batches: Iterable[Batch]) -> Generator[Batch, None, None]:
        """Upscale batches in order; a backend may have several under way at the same time.

        Args:
            batches: As for `upscale`; they may differ in shape.

        Returns:
            A generator. One that is left before its end has to be closed, since it may hold what
            the next call waits for.

        Raises:
            BackendError: As for `upscale`.
        """
        waiting: deque[Batch] = deque()

        def checked() -> Iterator[Batch]:
            for lr in batches:
                waiting.append(_checked_input(lr))
                yield waiting[-1]

        for sr in self._run_many(checked()):
            self._check_output(waiting.popleft(), sr)
            yield sr

    def bound_call(self, lr: Batch) -> Callable[[], object]:
        """The network alone, for measuring: a call that leaves out copies between host and device.

        Args:
            lr: As for `upscale`; it is brought to the device here, once.

        Returns:
            A call that runs the network on it and returns when the result lies in the device's
            memory. On a CPU there is nothing to copy, and it does what `upscale` does.
        """
        ready = _checked_input(lr)
        return lambda: self._run(ready)

    def free_memory(self) -> int | None:
        """Bytes of a GPU's memory that a run may take; None where a run takes main memory, or
        nobody can tell.
        """
        return None

    def _check_output(self, lr: Batch, sr: Batch) -> None:
        expected = (*lr.shape[:2], lr.shape[2] * SCALE, lr.shape[3] * SCALE)
        if sr.shape != expected or sr.dtype != np.float32:
            raise BackendError(
                f"{self.info.model}: output is {sr.dtype} {sr.shape}; expected float32 {expected}"
            )
        if not np.isfinite(sr.sum()):
            if not np.isfinite(lr).all():
                raise BackendError("the input holds NaN or infinity")
            raise BackendError(
                f"{self.info.model} on {self.info.device} gave NaN or infinity in "
                f"{self.info.precision}; use fp32"
            )

    @abstractmethod
    def _run(self, lr: Batch) -> Batch:
        """Upscale a checked, C-contiguous batch."""

    def _run_many(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Upscale checked batches; overridden where their work can overlap."""
        for lr in batches:
            yield self._run(lr)

    def close(self) -> None:  # noqa: B027  # most backends have nothing to release
        """Release what outlives the object, if anything; calling it twice is allowed."""

    def __enter__(self: _B) -> _B:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def is_out_of_memory(error: Exception) -> bool:
    """Whether a runtime's error says that memory ran out; few have a type of their own for it."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or any(phrase in said for phrase in _NO_MEMORY)


@contextmanager
def translated_errors(what: str, shape: tuple[int, ...]) -> Iterator[None]:
    """Turns a runtime's errors while it runs into ours.

    Args:
        what: What runs, for messages.
        shape: Of its input.

    Raises:
        MemoryError: The memory ran out.
        BackendError: Anything else went wrong.
    """
    try:
        yield
    except Exception as error:  # runtimes raise their own types, derived from Exception
        reason = first_line(error)
        if is_out_of_memory(error):
            raise MemoryError(reason) from None
        raise BackendError(f"{what} failed on an input of {shape}: {reason}") from None


def _checked_input(lr: Batch) -> Batch:
    if lr.ndim != 4 or lr.shape[1] != CHANNELS or 0 in lr.shape or lr.dtype != np.float32:
        raise BackendError(
            f"input is {lr.dtype} {lr.shape}; expected float32 (B, {CHANNELS}, H, W)"
        )
    return np.ascontiguousarray(lr)
