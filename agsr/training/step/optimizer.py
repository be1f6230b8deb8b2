"""The optimizer: Muon for the matrices of hidden layers, Adam for all other parameters.

Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon) orthogonalizes the momentum of
a weight matrix before each step, so that all directions of a layer learn at the same rate. Its
steps are scaled to the root mean square of Adam's (Liu et al., 2025, arXiv:2502.16982), which makes
learning rates comparable. `agsr.training.step.muon` computes the steps; ``docs/training.md`` shows
the gain.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from agsr.training.state_tensors import fill
from agsr.training.step.muon import Muon

MIN_CHANNELS = 16
"""Fewest input and output channels of a convolution for Muon: smaller ones are hardly matrices.
Adam also trains the last convolution, which makes the image."""

ADAM_SHARE = 0.5
"""Adam's learning rate beside Muon, as a share of Muon's."""


class Optimizer:
    """Steps a module's parameters.

    Args:
        parameters: Parameters by name, with convolution weights channels last in memory
            (`agsr.model.base.place`).
        muon: Train hidden convolutions with Muon; otherwise Adam trains everything.
        betas: Adam's decay rates.

    Raises:
        ValueError: A weight has another memory layout.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], *, muon: bool, betas: tuple[float, float]
    ) -> None:
        self._hidden = _hidden(parameters) if muon else {}
        self._others = {n: p for n, p in parameters.items() if n not in self._hidden}
        # Views as matrices, which share the weights' memory.
        self._matrices = {n: _matrix(p.detach()) for n, p in self._hidden.items()}
        for name, parameter in self._hidden.items():
            if self._matrices[name].data_ptr() != parameter.data_ptr():
                raise ValueError(f"{name} is not channels last in memory")
        device = next(iter(parameters.values())).device
        # Scalars on the device, which a CUDA graph reads at each replay.
        self._rate, self._adam_rate = (torch.zeros((), device=device) for _ in range(2))
        self._adam = torch.optim.Adam(
            self._others.values(),
            lr=self._adam_rate,
            betas=betas,
            fused=True,
            capturable=device.type == "cuda",
        )
        self._muon = Muon(list(self._matrices.values()))

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the next steps, on Adam's scale."""
        self._rate.fill_(rate)
        self._adam_rate.fill_(rate * (ADAM_SHARE if self._matrices else 1))

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for parameter in (*self._hidden.values(), *self._others.values()):
            parameter.grad = None

    def step(self) -> None:
        """Step down the parameters' gradients, without synchronization with the device."""
        self._adam.step()
        gradients = [p.grad for p in self._hidden.values() if p.grad is not None]
        self._muon.step([_matrix(gradient) for gradient in gradients], self._rate)

    def state(self) -> dict[str, Tensor]:
        """Return Adam's moments and Muon's momenta; zeros before the first step."""
        tensors = {}
        for name, parameter in self._others.items():
            moments = self._adam.state[parameter]
            for kind, moment in (("mean", "exp_avg"), ("square", "exp_avg_sq")):
                tensors[f"{kind}.{name}"] = moments.get(moment, torch.zeros_like(parameter))
        for name, momentum in zip(self._matrices, self._muon.momenta, strict=True):
            tensors[f"momentum.{name}"] = momentum
        return {name: tensor.detach() for name, tensor in tensors.items()}

    def load(self, tensors: Mapping[str, Tensor], iteration: int) -> None:
        """Restore the tensors of `state`, saved after ``iteration`` steps.

        Raises:
            CheckpointError: A tensor is missing or has another shape.
        """
        for name, parameter in self._others.items():
            mean, square = torch.empty_like(parameter), torch.empty_like(parameter)
            fill({f"mean.{name}": mean, f"square.{name}": square}, tensors)
            self._adam.state[parameter] = {
                "step": torch.tensor(float(iteration), device=parameter.device),
                "exp_avg": mean,
                "exp_avg_sq": square,
            }
        names = [f"momentum.{name}" for name in self._matrices]
        fill(dict(zip(names, self._muon.momenta, strict=True)), tensors)


def _hidden(parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """Return the convolution weights between feature maps, for Muon."""
    *convolutions, _ = [(n, p) for n, p in parameters.items() if p.ndim == 4]
    return {n: p for n, p in convolutions if min(p.shape[:2]) >= MIN_CHANNELS}


def _matrix(weight: Tensor) -> Tensor:
    """View ``(out, in, y, x)``, channels last in memory, as ``(out, y * x * in)``."""
    return weight.permute(0, 2, 3, 1).flatten(1)
