"""torch backend: runs a checkpoint as it was trained. The reference for all other backends."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from agsr.backend import Backend, BackendInfo, Batch, is_out_of_memory
from agsr.engines.places import RUNTIMES
from agsr.engines.tensorrt.cuda_errors import explain
from agsr.errors import BackendError, BackendRequestError
from agsr.system.cpu import features_known, multiplies_bf16, multiplies_fp16, thread_count
from agsr.system.optional_import import require
from agsr.system.text import first_line

if TYPE_CHECKING:
    from torch import Tensor

_log = logging.getLogger(__name__)

_LOADED_BY = os.getpid()

_TO_INT8 = (
    "export it with: agsr export -w FILE.safetensors --precision int8 --calibrate FOLDER, and run "
    "the .onnx file"
)


def check_precision(precision: str) -> None:
    """Reject a precision that torch doesn't run in.

    Raises:
        BackendRequestError: It is not a precision of ``RUNTIMES["torch"]``.
    """
    choices = RUNTIMES["torch"].precisions
    if precision not in choices:
        advice = f"; {_TO_INT8}" if precision == "int8" else ""
        known = ", ".join(choices)
        raise BackendRequestError(f"torch runs in {known}, not in {precision}{advice}")


def _unusable(device: str, error: Exception) -> str:
    return f"torch can't use the device '{device}': {explain(first_line(error))}"


class TorchBackend(Backend):
    """Runs a ``.safetensors`` checkpoint.

    Args:
        path: Checkpoint file.
        steps: Time steps of the recurrent attention loop; None means the network's default.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...
        precision: ``"fp32"``, or autocast to ``"fp16"`` or ``"bf16"``.

    Raises:
        CheckpointError: The file is not a network's weights.
        BackendRequestError: torch knows no such device or precision.
        BackendError: The device does not exist here, or the network does not support the number of
            steps.
        MissingDependencyError: torch is not installed.
    """

    bytes_per_pixel = 8_000

    def __init__(
        self,
        path: Path,
        *,
        steps: int | None = None,
        device: str = "cpu",
        precision: str = "fp32",
    ) -> None:
        require("torch", extra="train", purpose="The torch backend")
        require("safetensors", extra="train", purpose="The torch backend")
        check_precision(precision)
        import torch

        from agsr.model.base import place
        from agsr.model.checkpoint import load_checkpoint

        if os.getpid() != _LOADED_BY:
            _log.warning(
                "torch runs on one thread here, in a forked process; start processes by "
                "multiprocessing.get_context('spawn')"
            )
            torch.set_num_threads(1)
        checkpoint = load_checkpoint(path)
        steps = checkpoint.network_type.default_steps if steps is None else steps
        try:
            self._network = checkpoint.build()
            self._network.check_steps(steps)
        except ValueError as error:
            raise BackendError(str(error)) from None
        try:
            self._device = torch.device(device)
        except RuntimeError as error:
            raise BackendRequestError(_unusable(device, error)) from None
        try:
            self._network = place(self._network, self._device)
        except (RuntimeError, AssertionError) as error:
            raise BackendError(_unusable(device, error)) from None
        if self._device.type == "cpu" and _emulated(precision):
            _log.warning("torch emulates %s on this processor, more slowly than fp32", precision)
        types = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}
        self._autocast_type = types[precision]
        self._steps = steps
        self.info = BackendInfo(
            name="torch",
            device=str(self._device),
            precision=precision,
            steps=steps,
            receptive_radius=checkpoint.config.receptive_radius(steps),
            model=str(path),
            weights_hash=checkpoint.weights_hash,
        )

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

        tensor = self._place(lr)

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

        autocast = torch.autocast(
            self._device.type,
            self._autocast_type,
            enabled=self._autocast_type is not None,
        )
        with torch.inference_mode(), autocast, _exact_convolutions(), self._usable_threads():
            return cast("Tensor", self._network(lr, self._steps))

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


def _exact_convolutions() -> AbstractContextManager[None]:
    """Turn TF32 off, which cuDNN would use by default for float32."""
    import torch

    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


def _emulated(precision: str) -> bool:
    """Return True if the processor is known to lack this arithmetic."""
    if precision == "fp16":
        return features_known() and not multiplies_fp16()
    return precision == "bf16" and features_known() and not multiplies_bf16()
