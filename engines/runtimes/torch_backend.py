"""torch backend: runs a checkpoint as it was trained. The reference for all other backends."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from agsr.backend import BackendInfo
from agsr.engines.runtimes.torch_module import (
    TorchModule,
    check_precision,
    device_errors,
    find_device,
    one_thread_if_forked,
    warn_if_emulated,
)
from agsr.errors import BackendError
from agsr.system.optional_import import require

if TYPE_CHECKING:
    from torch import Tensor


class TorchBackend(TorchModule):
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

        one_thread_if_forked()
        checkpoint = load_checkpoint(path)
        steps = checkpoint.network_type.default_steps if steps is None else steps
        try:
            self._network = checkpoint.build()
            self._network.check_steps(steps)
        except ValueError as error:
            raise BackendError(str(error)) from None
        self._device = find_device(device)
        with device_errors(device):
            self._network = place(self._network, self._device)
        warn_if_emulated(self._device, precision)
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

    def _network_output(self, lr: Tensor) -> Tensor:
        import torch

        autocast = torch.autocast(
            self._device.type,
            self._autocast_type,
            enabled=self._autocast_type is not None,
        )
        with autocast:
            return cast("Tensor", self._network(lr, self._steps))
