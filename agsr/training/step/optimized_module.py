"""A module in training: its parameters, its optimizer, and its part of a state file."""

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


class Learner:
    """Trains one module.

    Args:
        module: What is trained; it is moved to the world's device.
        world: The ranks that train it together.
        clip_norm: Largest norm of the gradient.
        muon: Whether Muon trains the hidden convolutions; see `agsr.training.step.optimizer`.
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
        """Set the learning rate of the steps to come."""
        self._optimizer.set_rate(rate)

    def step(self, loss: Tensor) -> None:
        """One optimizer step down the gradient of a loss; nothing in it waits for the device."""
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), self._clip_norm)
        self._optimizer.step()

    def state(self, prefix: str) -> dict[str, Tensor]:
        """The module's values and the optimizer's, by names that start with ``prefix``."""
        tensors = {f"model.{name}": value for name, value in self.values.items()}
        return {prefix + n: value for n, value in (tensors | self._optimizer.state()).items()}

    def load(self, tensors: Mapping[str, Tensor], prefix: str, iteration: int) -> None:
        """Take over what `state` gave after ``iteration`` steps.

        Raises:
            CheckpointError: A tensor is missing or has another shape.
        """
        own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        try:
            fill(self.values, own, "model.")
            self._optimizer.load(own, iteration)
        except CheckpointError as error:
            raise CheckpointError(
                f"the training state does not fit this network and optimizer: {error}; "
                "resume with the settings of its run, or start a new one with another -o"
            ) from None


class AfterSteps(nn.Module):
    """A network's `after_steps` as the ``forward`` that torch's wrappers hook into."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, lr: Tensor, chosen: Sequence[int]) -> list[Tensor]:
        """SR images after the chosen steps."""
        return self.network.after_steps(lr, chosen)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Let gradients flow through a module, but not into its parameters."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


def autocast(device: torch.device, bf16: bool) -> torch.autocast:
    """The arithmetic of a forward pass: bfloat16 where it is wanted, else float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)
