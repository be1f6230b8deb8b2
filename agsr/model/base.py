"""Base classes of all ×4 networks: the attentive generator, and the baselines.

`agsr.model.checkpoint` stores them, `agsr.training.trainer` trains them, `agsr.export` and
`agsr.engines` run them, all through `Network`. `agsr.model.registry` maps names to classes.

Shape suffixes: B batch, H and W low-resolution height and width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn

from agsr.assembly.config import NetworkConfig as NetworkConfig


class Network(nn.Module, ABC):
    """Base class of networks that map LR images to SR images, four times as large.

    Args:
        config: Shape of the network; None uses the defaults of `config_type`.
    """

    name: ClassVar[str]
    """Name of the network in ``agsr train --model``."""
    config_type: ClassVar[type[NetworkConfig]]
    """Class of the configuration."""
    max_steps: ClassVar[int] = 1
    """Largest number of time steps; 1 for a network without a loop."""
    default_steps: ClassVar[int] = 1
    """Default number of time steps."""
    regions: ClassVar[tuple[str, ...]] = ("after_steps",)
    """Methods and modules that `torch.compile` compiles separately."""
    config: NetworkConfig

    @abstractmethod
    def after_steps(self, lr_B3HW: Tensor, chosen: Sequence[int]) -> list[Tensor]:
        """Return SR images ``(B, 3, 4H, 4W)`` after each of the chosen steps.

        Args:
            lr_B3HW: As for `forward`.
            chosen: Step numbers, from 1, ascending.
        """

    def every_step(self, lr_B3HW: Tensor, steps: int) -> list[Tensor]:
        """Return SR images ``(B, 3, 4H, 4W)`` after step 1, 2, ... ``steps``."""
        return self.after_steps(lr_B3HW, range(1, steps + 1))

    def forward(self, lr_B3HW: Tensor, steps: int) -> Tensor:
        """Upscale a batch.

        Args:
            lr_B3HW: ``(B, 3, H, W)`` RGB in [0, 1], any H and W from 1.
            steps: Time steps, 1 to `max_steps`.

        Returns:
            ``(B, 3, 4H, 4W)`` RGB, nominal range [0, 1], not clipped.
        """
        return self.after_steps(lr_B3HW, [steps])[0]

    @classmethod
    def check_steps(cls, steps: int) -> None:
        """Reject a step count that this network doesn't support.

        Raises:
            ValueError: It is below 1 or above `max_steps`.
        """
        if not 1 <= steps <= cls.max_steps:
            expected = f"1 to {cls.max_steps}" if cls.max_steps > 1 else "1: it has no loop"
            raise ValueError(f"steps is {steps}; {cls.name} supports {expected}")


AnyModule = TypeVar("AnyModule", bound=nn.Module)


def place(module: AnyModule, device: torch.device) -> AnyModule:
    """Move a module to a device, channels last in memory: the fastest layout of convolutions."""
    return module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
