"""A module in training: its parameters, its Adam, and its part of a state file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from agsr.distributed import World
from agsr.errors import CheckpointError
from agsr.network import Network, place


class Learner:
    """Trains one module.

    Args:
        module: What is trained; it is moved to the world's device.
        world: The ranks that train it together.
        clip_norm: Largest norm of the gradient.
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
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        self.module = place(module, world.device)
        self.parameters = dict(self.module.named_parameters())
        values = self.module.state_dict()
        self.values = {k: v for k, v in values.items() if v.is_floating_point()}
        self._clip_norm = clip_norm
        self._adam = torch.optim.Adam(self.parameters.values(), betas=betas, fused=True)

    def step(self, loss: Tensor, rate: float) -> None:
        """One optimizer step down the gradient of a loss."""
        self._adam.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), self._clip_norm)
        self._adam.param_groups[0]["lr"] = rate
        self._adam.step()

    def state(self, prefix: str) -> dict[str, Tensor]:
        """The module's values and Adam's moments, by names that start with ``prefix``."""
        tensors = {f"{prefix}model.{name}": value for name, value in self.values.items()}
        for name, parameter in self.parameters.items():
            moments = self._adam.state[parameter]
            for kind, moment in (("mean", "exp_avg"), ("square", "exp_avg_sq")):
                value = moments[moment] if moments else torch.zeros_like(parameter)
                tensors[f"{prefix}{kind}.{name}"] = value
        return tensors

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor], prefix: str, iteration: int) -> None:
        """Take over what `state` gave after ``iteration`` steps.

        Raises:
            CheckpointError: A tensor is missing or has another shape.
        """
        try:
            for name, value in self.values.items():
                value.copy_(tensors[f"{prefix}model.{name}"])
            for name, parameter in self.parameters.items():
                self._adam.state[parameter] = {
                    "step": torch.tensor(float(iteration), device=parameter.device),
                    "exp_avg": torch.empty_like(parameter).copy_(tensors[f"{prefix}mean.{name}"]),
                    "exp_avg_sq": torch.empty_like(parameter).copy_(
                        tensors[f"{prefix}square.{name}"]
                    ),
                }
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(
                f"the training state does not fit this network: {error}"
            ) from None


class EveryStep(nn.Module):
    """A network's `every_step` as the ``forward`` that torch's wrappers hook into."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, lr: Tensor, steps: int) -> list[Tensor]:
        """SR images after step 1, 2, ... ``steps``."""
        return self.network.every_step(lr, steps)


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
