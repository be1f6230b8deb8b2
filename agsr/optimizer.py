"""What turns gradients into steps: Muon for the matrices of hidden layers, Adam for all else.

Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon) makes the momentum of a weight
matrix orthogonal before it is added, so that all directions of a layer learn at one pace. Its steps
are scaled to the root mean square of Adam's (Liu et al., 2025, arXiv:2502.16982), so their
learning rates compare. What it gains here is in ``docs/training.md``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

FEWEST_CHANNELS = 16
"""Muon takes convolutions of at least so many channels in and out: between fewer there is hardly a
matrix. The last one, which makes the image, is Adam's, too."""

ADAM_SHARE = 0.5
"""Adam's learning rate beside Muon, as a share of Muon's."""


class Optimizer:
    """Steps a module's parameters.

    Args:
        parameters: By name; convolution weights lie channels last in memory (`agsr.network.place`).
        muon: Whether Muon takes the hidden convolutions; otherwise Adam takes everything.
        betas: Adam's decay rates.

    Raises:
        ValueError: A weight lies otherwise.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], *, muon: bool, betas: tuple[float, float]
    ) -> None:
        self._hidden = _hidden(parameters) if muon else {}
        self._others = {n: p for n, p in parameters.items() if n not in self._hidden}
        # Muon takes matrices: these share the weights' memory.
        self._matrices = {n: nn.Parameter(_matrix(p.detach())) for n, p in self._hidden.items()}
        for name, parameter in self._hidden.items():
            if self._matrices[name].data_ptr() != parameter.data_ptr():
                raise ValueError(f"{name} does not lie channels last in memory")
        self._adam = torch.optim.Adam(self._others.values(), betas=betas, fused=True)
        self._muon = (
            torch.optim.Muon(
                self._matrices.values(), weight_decay=0.0, adjust_lr_fn="match_rms_adamw"
            )
            if self._matrices
            else None
        )

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in (*self._hidden.values(), *self._others.values()):
            parameter.grad = None

    def step(self, rate: float) -> None:
        """Step down the gradients that the parameters hold.

        Args:
            rate: Learning rate, by Adam's measure.
        """
        self._adam.param_groups[0]["lr"] = rate * (ADAM_SHARE if self._muon else 1)
        self._adam.step()
        if self._muon is None:
            return
        for name, parameter in self._hidden.items():
            gradient = parameter.grad
            self._matrices[name].grad = None if gradient is None else _matrix(gradient)
        self._muon.param_groups[0]["lr"] = rate
        self._muon.step()  # type: ignore[no-untyped-call]
        self._muon.zero_grad()

    def state(self) -> dict[str, Tensor]:
        """Adam's moments and Muon's momenta; zeros before the first step."""
        tensors = {}
        for name, parameter in self._others.items():
            moments = self._adam.state[parameter]
            for kind, moment in (("mean", "exp_avg"), ("square", "exp_avg_sq")):
                tensors[f"{kind}.{name}"] = moments.get(moment, torch.zeros_like(parameter))
        for name, matrix in self._matrices.items():
            assert self._muon is not None
            momentum = self._muon.state[matrix].get("momentum_buffer", torch.zeros_like(matrix))
            tensors[f"momentum.{name}"] = momentum
        return {name: tensor.detach() for name, tensor in tensors.items()}

    def load(self, tensors: Mapping[str, Tensor], iteration: int) -> None:
        """Take over what `state` gave after ``iteration`` steps.

        Raises:
            KeyError: A tensor is missing.
            RuntimeError: A tensor has another shape.
        """
        for name, parameter in self._others.items():
            self._adam.state[parameter] = {
                "step": torch.tensor(float(iteration), device=parameter.device),
                "exp_avg": _like(parameter, tensors[f"mean.{name}"]),
                "exp_avg_sq": _like(parameter, tensors[f"square.{name}"]),
            }
        for name, matrix in self._matrices.items():
            assert self._muon is not None
            self._muon.state[matrix]["momentum_buffer"] = _like(matrix, tensors[f"momentum.{name}"])


def _hidden(parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """Weights between features and features."""
    *convolutions, _ = [(n, p) for n, p in parameters.items() if p.ndim == 4]
    return {n: p for n, p in convolutions if min(p.shape[:2]) >= FEWEST_CHANNELS}


def _matrix(weight: Tensor) -> Tensor:
    """``(out, in, y, x)``, channels last in memory → ``(out, y * x * in)``, the same memory."""
    return weight.permute(0, 2, 3, 1).flatten(1)


@torch.no_grad()
def _like(own: Tensor, value: Tensor) -> Tensor:
    """A copy of a value with the memory layout and on the device of ``own``."""
    if own.shape != value.shape:
        raise RuntimeError(f"found {tuple(value.shape)}, expected {tuple(own.shape)}")
    return torch.empty_like(own).copy_(value)
