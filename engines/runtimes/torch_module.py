"""What all networks on torch share: device, threads, memory and errors.

`agsr.engines.runtimes.torch_backend` runs this project's checkpoints with it, and
`agsr.engines.community.backend` the networks of other projects.
"""

from __future__ import annotations

import logging
import os
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

import numpy as np

from agsr.backend import Backend, Batch, is_out_of_memory
from agsr.engines.places import RUNTIMES
from agsr.engines.tensorrt.cuda_errors import explain
from agsr.errors import BackendError, BackendRequestError
from agsr.system.cpu import features_known, multiplies_bf16, multiplies_fp16, thread_count
from agsr.system.text import first_line

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_log = logging.getLogger(__name__)

_LOADED_BY = os.getpid()

_TO_INT8 = (
    "export it with: agsr export -w {weights} --precision int8 --calibrate FOLDER, and run "
    "the .onnx file"
)


def check_precision(precision: str, weights: str = "FILE.safetensors") -> None:
    """Reject a precision that torch doesn't run in.

    Raises:
        BackendRequestError: It is not a precision of ``RUNTIMES["torch"]``.
    """
    choices = RUNTIMES["torch"].precisions
    if precision not in choices:
        advice = f"; {_TO_INT8.format(weights=weights)}" if precision == "int8" else ""
        known = ", ".join(choices)
        raise BackendRequestError(f"torch runs in {known}, not in {precision}{advice}")


def one_thread_if_forked() -> None:
    """Limit torch to one thread in a forked process, whose other threads are gone."""
    import torch

    if os.getpid() == _LOADED_BY:
        return
    _log.warning(
        "torch runs on one thread here, in a forked process; start processes by "
        "multiprocessing.get_context('spawn')"
    )
    torch.set_num_threads(1)


def find_device(device: str) -> torch.device:
    """Return torch's device of this name.

    Raises:
        BackendRequestError: torch knows no such device.
    """
    import torch

    try:
        return torch.device(device)
    except RuntimeError as error:
        raise BackendRequestError(_unusable(device, error)) from None


@contextmanager
def device_errors(device: str) -> Iterator[None]:
    """Translate the errors of moving a network to a device into BackendError."""
    try:
        yield
    except (RuntimeError, AssertionError) as error:
        raise BackendError(_unusable(device, error)) from None


def warn_if_emulated(device: torch.device, precision: str) -> None:
    """Log a warning if the processor is known to lack this arithmetic."""
    if device.type == "cpu" and _emulated(precision):
        _log.warning("torch emulates %s on this processor, more slowly than fp32", precision)


class TorchModule(Backend):
    """A network on torch; subclasses load it, set `_device`, and implement `_network_output`."""

    _device: torch.device

    @abstractmethod
    def _network_output(self, lr: Tensor) -> Tensor:
        """Run the network on a tensor on the device."""

    def _run(self, lr: Batch) -> Batch:
        with self._translated_errors(lr):
            sr = self._forward(self._place(lr)).float().cpu()
        return np.ascontiguousarray(sr.numpy())

    def free_memory(self) -> int | None:
        """See `Backend.free_memory`; memory that torch has reserved counts as free."""
        import torch

        if self._device.type != "cuda":
            return None
        reserved = torch.cuda.memory_reserved(self._device)
        unused = reserved - torch.cuda.memory_allocated(self._device)
        return int(torch.cuda.mem_get_info(self._device)[0] + unused)

    def bound_call(self, lr: Batch) -> Callable[[], object]:
        """See `Backend.bound_call`; on CUDA it waits for the device, but copies nothing."""
        import torch

        tensor = self._place(self._padded(lr))

        def run() -> None:
            with self._translated_errors(lr):
                self._forward(tensor)
                if self._device.type == "cuda":
                    torch.cuda.synchronize(self._device)

        return run

    def _place(self, lr: Batch) -> Tensor:
        import torch

        tensor = torch.from_numpy(lr).to(self._device)
        return tensor.contiguous(memory_format=torch.channels_last)

    def _forward(self, lr: Tensor) -> Tensor:
        import torch

        with torch.inference_mode(), _exact_convolutions(), self._usable_threads():
            return self._network_output(lr)

    @contextmanager
    def _usable_threads(self) -> Iterator[None]:
        """Limit torch to the usable CPUs; in a forked process, whose threads are gone, to 1."""
        import torch

        before = torch.get_num_threads()
        forked = os.getpid() != _LOADED_BY
        threads = 1 if forked else min(before, thread_count(None))
        if self._device.type != "cpu" or threads == before:
            yield
            return
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            if not forked:  # more than one thread would hang there
                torch.set_num_threads(before)

    @contextmanager
    def _translated_errors(self, lr: Batch) -> Iterator[None]:
        """Translate torch's errors into BackendError or MemoryError."""
        try:
            yield
        except RuntimeError as error:
            reason = first_line(error)
            if is_out_of_memory(error):
                raise MemoryError(reason) from None
            raise BackendError(
                f"torch failed on an input of {lr.shape} on {self._device}: {reason}"
            ) from None


def _unusable(device: str, error: Exception) -> str:
    return f"torch can't use the device '{device}': {explain(first_line(error))}"


def _exact_convolutions() -> AbstractContextManager[None]:
    """Turn TF32 off, which cuDNN would use by default for float32."""
    import torch

    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


def _emulated(precision: str) -> bool:
    """Return True if the processor is known to lack this arithmetic."""
    if precision == "fp16":
        return features_known() and not multiplies_fp16()
    return precision == "bf16" and features_known() and not multiplies_bf16()
