"""The protocol of all backends: a batch of LR arrays in, a batch of SR arrays out.

`Backend.upscale` checks input and output; a backend implements only `Backend._run`. The `Upscaler`
and the benchmark use only this protocol, so all backends run and are measured in the same way.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from agsr.contract import CHANNELS, SCALE, SizeRule, Tiling
from agsr.errors import BackendError
from agsr.system.text import counted, first_line
from agsr.tiling import AUTO_AREA

__all__ = [
    "Backend",
    "BackendInfo",
    "Batch",
    "is_out_of_memory",
    "translated_errors",
]

_B = TypeVar("_B", bound="Backend")

_NO_MEMORY = ("out of memory", "bad_alloc", "failed to allocate", "can't allocate memory")

Batch = NDArray[np.float32]
"""``(B, 3, H, W)`` float32, RGB, nominal range [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class BackendInfo:
    """Description of the running backend.

    >>> BackendInfo(
    ...     name="ort", device="CPUExecutionProvider", precision="fp32", steps=4,
    ...     receptive_radius=36, model="psnr", weights_hash="",
    ... ).summary
    'ort (CPUExecutionProvider), 4 steps, fp32'
    """

    name: str
    """``"torch"``, ``"ort"``, ``"openvino"``, ``"trt"`` or ``"triton"``."""
    device: str
    """Device or execution provider in use, which may differ from the requested one."""
    precision: str
    """Arithmetic inside the network."""
    steps: int | None
    """Time steps of the recurrent attention loop; None for another project's network."""
    receptive_radius: int | None
    """LR pixels to each side that an output pixel depends on: the halo of exact tiling. None if
    unknown, as for some foreign networks."""
    model: str
    """Name or path of the weights."""
    weights_hash: str
    """SHA-256 of the weights, equal for all backends and precisions of one checkpoint."""
    scale: int = SCALE
    """Output pixels per input pixel along each axis; 1 for networks that restore."""
    architecture: str = ""
    """Architecture of another project's network, if known; empty for networks of this project."""
    tiling: Tiling = "supported"
    """Whether pictures may be cut."""
    largest: tuple[int, int] | None = None
    """Height and width of the largest input, LR pixels; None means limited by memory only."""
    ensemble: int = 1
    """Turns and mirrorings of an input whose results are averaged, see `agsr.engines.ensemble`."""
    reason: str = "asked for"
    """Reason for the choice of this backend."""
    io_format: str = ""
    """Input and output of another project's network as found or given; empty for the contract's."""

    @property
    def summary(self) -> str:
        """Short description: ``ort (CPUExecutionProvider), 4 steps, fp32``."""
        steps = "" if self.steps is None else f"{counted(self.steps, 'step')}, "
        ensemble = f", ensemble of {self.ensemble}" if self.ensemble > 1 else ""
        network = f"{self.architecture} ×{self.scale}, " if self.architecture else ""
        return f"{self.name} ({self.device}), {network}{steps}{self.precision}{ensemble}"


class Backend(ABC):
    """A loaded network. Use it as a context manager, or call `close`.

    >>> class Nearest(Backend):
    ...     info = BackendInfo(
    ...         name="nearest", device="cpu", precision="fp32", steps=None, receptive_radius=0,
    ...         model="nearest", weights_hash="",
    ...     )
    ...
    ...     def _run(self, lr: Batch) -> Batch:
    ...         return lr.repeat(4, axis=2).repeat(4, axis=3)
    >>> with Nearest() as backend:
    ...     backend.upscale(np.zeros((1, 3, 2, 3), np.float32)).shape
    (1, 3, 8, 12)
    """

    info: BackendInfo
    """Set by the constructor of each backend."""

    bytes_per_pixel: int = 10_000
    """Bytes of working memory per LR pixel of an input, from which ``--tile auto`` chooses tiles.
    Backends override it with a measured value."""

    tile_area: int = AUTO_AREA
    """Pixels of the largest tile of ``--tile auto``; larger ones are slower."""

    tile_align: int = 1
    """Tiles start at multiples of it, see `agsr.tiling.windows`."""

    sizes: SizeRule = SizeRule()
    """Sizes that `_run` accepts. Inputs are padded to them by mirroring, results cropped."""

    turn: AbstractContextManager[Any]
    """Held while an image runs: several `Upscaler` in several threads may share a backend. A
    lock, except for backends that run several images at the same time."""

    def __new__(cls: type[_B], *_: Any, **__: Any) -> _B:
        """Create the instance with its lock, so that constructors need not."""
        made = super().__new__(cls)
        made.turn = threading.Lock()
        return made

    def upscale(self, lr: Batch) -> Batch:
        """Upscale a batch.

        Args:
            lr: ``(B, 3, H, W)`` float32 RGB, nominal range [0, 1].

        Returns:
            ``(B, 3, sH, sW)`` float32 RGB, not clipped; s is the scale in `info`.

        Raises:
            BackendError: The input has another shape or type, or the output isn't finite.
            MemoryError: Out of memory; a smaller input may fit.
        """
        (sr,) = self.upscale_many([lr])
        return sr

    def upscale_many(self, batches: Iterable[Batch]) -> Generator[Batch, None, None]:
        """Upscale batches in order; a backend may process several at the same time.

        Args:
            batches: As for `upscale`; they may differ in shape.

        Returns:
            A generator. Close it if it isn't exhausted: it may hold resources that the next call
            waits for.

        Raises:
            BackendError: As for `upscale`.
        """
        waiting: deque[tuple[tuple[int, ...], Batch]] = deque()

        def checked() -> Iterator[Batch]:
            for lr in batches:
                padded = self._padded(lr)
                waiting.append((lr.shape[2:], padded))
                yield padded

        for sr in self._run_many(checked()):
            (height, width), padded = waiting.popleft()
            self._check_output(padded, sr)
            yield _cropped(sr, height * self.info.scale, width * self.info.scale)

    def bound_call(self, lr: Batch) -> Callable[[], object]:
        """Bind an input to a call that runs the network alone, without copies, for measuring.

        Args:
            lr: As for `upscale`; it is copied to the device once, here.

        Returns:
            A call that runs the network on it and returns when the result is in device memory. On
            a CPU it does the same as `upscale`.
        """
        ready = self._padded(lr)
        return lambda: self._run(ready)

    def free_memory(self) -> int | None:
        """Return the free GPU memory in bytes; None if unknown, or if main memory is used."""
        return None

    def _padded(self, lr: Batch) -> Batch:
        """Check an input, and pad it to an accepted size by mirroring its lower and right border.

        Raises:
            BackendError: It has another shape or type, or is larger than the only accepted size.
        """
        lr = _checked_input(lr)
        height, width = lr.shape[2:]
        rows, columns = self.sizes.padded(height, width)
        if rows < height or columns < width:
            raise BackendError(
                f"{self.info.model} accepts {columns}x{rows} pixels, got {width}x{height}; cut the "
                "image into tiles"
            )
        if (rows, columns) == (height, width):
            return lr
        added = ((0, 0), (0, 0), (0, rows - height), (0, columns - width))
        return np.pad(lr, added, mode="reflect")

    def _check_output(self, lr: Batch, sr: Batch) -> None:
        height, width = (side * self.info.scale for side in lr.shape[2:])
        expected = (*lr.shape[:2], height, width)
        if sr.shape != expected or sr.dtype != np.float32:
            raise BackendError(
                f"{self.info.model}: output is {sr.dtype} {sr.shape}; expected float32 {expected}"
            )
        if not np.isfinite(sr.sum()):
            if not np.isfinite(lr).all():
                raise BackendError("the input contains NaN or infinity")
            raise BackendError(
                f"{self.info.model} on {self.info.device} returned NaN or infinity in "
                f"{self.info.precision}; use fp32"
            )

    @abstractmethod
    def _run(self, lr: Batch) -> Batch:
        """Upscale a checked, C-contiguous batch."""

    def _run_many(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Upscale checked batches; overridden if their work can overlap."""
        for lr in batches:
            yield self._run(lr)

    def close(self) -> None:  # noqa: B027  # most backends have nothing to release
        """Release resources, if any; may be called twice."""

    def __enter__(self: _B) -> _B:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def is_out_of_memory(error: Exception) -> bool:
    """Return True if the error's message reports out-of-memory; few runtimes have a type for it.

    >>> is_out_of_memory(RuntimeError("CUDA: Out of memory"))
    True
    """
    message = str(error).lower()
    return isinstance(error, MemoryError) or any(phrase in message for phrase in _NO_MEMORY)


@contextmanager
def translated_errors(what: str, shape: tuple[int, ...]) -> Iterator[None]:
    """Translate runtime exceptions into BackendError or MemoryError.

    Args:
        what: Name of the running network, for messages.
        shape: Shape of its input.

    Raises:
        MemoryError: Out of memory.
        BackendError: Any other failure.

    >>> with translated_errors("psnr", (1, 3, 9, 9)):
    ...     raise RuntimeError("CUDA: out of memory")
    Traceback (most recent call last):
        ...
    MemoryError: CUDA: out of memory
    """
    try:
        yield
    except Exception as error:  # runtimes raise their own types, derived from Exception
        reason = first_line(error)
        if is_out_of_memory(error):
            raise MemoryError(reason) from None
        raise BackendError(f"{what} failed on an input of {shape}: {reason}") from None


def _cropped(sr: Batch, height: int, width: int) -> Batch:
    if sr.shape[2:] == (height, width):
        return sr
    return np.ascontiguousarray(sr[:, :, :height, :width])


def _checked_input(lr: Batch) -> Batch:
    if lr.ndim != 4 or lr.shape[1] != CHANNELS or 0 in lr.shape or lr.dtype != np.float32:
        raise BackendError(
            f"input is {lr.dtype} {lr.shape}; expected float32 (B, {CHANNELS}, H, W)"
        )
    return np.ascontiguousarray(lr)
