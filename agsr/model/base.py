"""What every network that enlarges by four has in common: ours, and those it is compared with.

`agsr.model.checkpoint` stores them, `agsr.training.trainer` trains them, `agsr.export` and
`agsr.engines` run them, all through `Network`; `agsr.model.registry` finds them by name.

Shape suffixes: B batch, H and W low-resolution height and width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(ABC):
    """Positive integers that fix a network's shape; those named after a kernel are odd."""

    def __post_init__(self) -> None:
        kind = type(self).__name__
        for field, value in vars(self).items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{kind}.{field} is {value!r}; expected an integer ≥ 1")
            if "kernel" in field and value % 2 == 0:
                raise ValueError(f"{kind}.{field} is {value}; expected odd")

    @abstractmethod
    def receptive_radius(self, steps: int) -> int:
        """LR pixels that can influence an output pixel, to each side, after ``steps`` steps.

        A halo this wide around a tile makes the tiled result equal to the whole one.
        """


class Network(nn.Module, ABC):
    """LR images → SR images, four times as large.

    Args:
        config: Shape of the network; None means the defaults of `config_type`.
    """

    name: ClassVar[str]
    """What ``agsr train --model`` calls it."""
    config_type: ClassVar[type[NetworkConfig]]
    """Class of its configuration."""
    most_steps: ClassVar[int] = 1
    """Time steps that may be asked for; 1 for a network without a loop."""
    default_steps: ClassVar[int] = 1
    """Time steps where nothing else is asked for."""
    regions: ClassVar[tuple[str, ...]] = ("after_steps",)
    """Methods and modules that `torch.compile` makes kernels for, each by itself."""
    config: NetworkConfig

    @abstractmethod
    def after_steps(self, lr_B3HW: Tensor, chosen: Sequence[int]) -> list[Tensor]:
        """SR images ``(B, 3, 4H, 4W)`` after each of the chosen steps.

        Args:
            lr_B3HW: As for `forward`.
            chosen: Numbers of steps, from 1, ascending.
        """

    def every_step(self, lr_B3HW: Tensor, steps: int) -> list[Tensor]:
        """SR images ``(B, 3, 4H, 4W)`` after step 1, 2, ... ``steps``."""
        return self.after_steps(lr_B3HW, range(1, steps + 1))

    def forward(self, lr_B3HW: Tensor, steps: int) -> Tensor:
        """Upscale.

        Args:
            lr_B3HW: ``(B, 3, H, W)`` RGB in [0, 1], any H and W from 1.
            steps: Time steps, 1 to `most_steps`.

        Returns:
            ``(B, 3, 4H, 4W)`` RGB, nominal range [0, 1], not clipped.
        """
        return self.after_steps(lr_B3HW, [steps])[0]

    @classmethod
    def check_steps(cls, steps: int) -> None:
        """Refuse a step count that this network doesn't have.

        Raises:
            ValueError: It is below 1 or above `most_steps`.
        """
        if not 1 <= steps <= cls.most_steps:
            expected = f"1 to {cls.most_steps}" if cls.most_steps > 1 else "1: it has no loop"
            raise ValueError(f"steps is {steps}; {cls.name} takes {expected}")


AnyModule = TypeVar("AnyModule", bound=nn.Module)


def place(module: AnyModule, device: torch.device) -> AnyModule:
    """Move a module to a device, channels last: the layout its convolutions are fastest in."""
    return module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
