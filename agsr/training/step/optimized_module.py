"""A module with its optimizer, and its part of a state file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from agsr.errors import CheckpointError
from agsr.model.base import Network, place
from agsr.training.distributed import World
from agsr.training.state_tensors import fill
from agsr.training.step.optimizer import Optimizer


class OptimizedModule:
    """A module with its optimizer.

    Args:
        module: Module to train; it is moved to the world's device.
        world: The ranks that train it together.
        clip_norm: Largest norm of the gradient.
        muon: Train hidden convolutions with Muon; see `agsr.training.step.optimizer`.
        betas: Adam's decay rates.

    Attributes:
        parameters: The module's parameters by name.
        values: The parameters and the floating-point buffers (batch norm's statistics), detached.
    """

    def __init__(
        self,
        module: nn.Module,
        world: World,
        *,
        clip_norm: float,
        muon: bool = False,
        betas: tuple[float, float] = (0.9, 0.99),
    ) -> None:
        self.module = place(module, world.device)
        self.parameters = dict(self.module.named_parameters())
        values = self.module.state_dict()
        self.values = {k: v for k, v in values.items() if v.is_floating_point()}
        self._clip_norm = clip_norm
        self._optimizer = Optimizer(self.parameters, muon=muon, betas=betas)

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the next steps."""
        self._optimizer.set_rate(rate)

    def step(self, loss: Tensor) -> None:
        """Take one step down the gradient of a loss, without synchronization with the device."""
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), self._clip_norm)
        self._optimizer.step()

    def state(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors of module and optimizer, by names that start with ``prefix``."""
        tensors = {f"model.{name}": value for name, value in self.values.items()}
        return {prefix + n: value for n, value in (tensors | self._optimizer.state()).items()}

    def load(self, tensors: Mapping[str, Tensor], prefix: str, iteration: int) -> None:
        """Restore the tensors of `state`, saved after ``iteration`` steps.

        Raises:
            CheckpointError: A tensor is missing or has another shape.
        """
        found = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        try:
            fill(self.values, found, "model.")
            self._optimizer.load(found, iteration)
        except CheckpointError as error:
            raise CheckpointError(
                f"the training state doesn't fit this network and optimizer: {error}; "
                "resume with the settings of its run, or start a new run with another -o"
            ) from None


class AfterSteps(nn.Module):
    """A network's `after_steps` as ``forward``, for torch's wrappers."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, lr: Tensor, chosen: Sequence[int]) -> list[Tensor]:
        """Return the SR images after the chosen steps."""
        return self.network.after_steps(lr, chosen)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Let gradients flow through a module but not into its parameters."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


def autocast(device: torch.device, bf16: bool) -> torch.autocast:
    """Return the context of a forward pass: bfloat16 if requested, else float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)
