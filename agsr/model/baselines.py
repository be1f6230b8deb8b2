"""Baselines of the paper's Table 1: SRCNN and SRGAN's generator, on the same interface.

Both follow their publications except for this project's contract: RGB input and output, ×4, and
the LR image as input (SRCNN upscales it internally, by the field's bicubic).

Shape suffixes: B batch, C feature width, H and W low-resolution height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agsr.bicubic import phase_filters
from agsr.contract import CHANNELS, SCALE
from agsr.model.base import Network, NetworkConfig

BICUBIC_RADIUS = 2
"""LR pixels to each side that bicubic upscaling reads."""


@dataclass(frozen=True, kw_only=True)
class SrcnnConfig(NetworkConfig):
    """Shape of SRCNN; the defaults are its paper's best, 9-5-5 with 64 and 32 filters."""

    kernel1: int = 9
    """Kernel of the patch extraction."""
    kernel2: int = 5
    """Kernel of the mapping."""
    kernel3: int = 5
    """Kernel of the reconstruction."""
    width1: int = 64
    """Filters of the patch extraction."""
    width2: int = 32
    """Filters of the mapping."""

    def receptive_radius(self, steps: int) -> int:  # noqa: ARG002  # no loop
        """Return the number of LR pixels to each side that influence an output pixel."""
        hr = self.kernel1 // 2 + self.kernel2 // 2 + self.kernel3 // 2
        return -(-hr // SCALE) + BICUBIC_RADIUS


@dataclass(frozen=True, kw_only=True)
class SrResNetConfig(NetworkConfig):
    """Shape of SRGAN's generator; the defaults are its paper's."""

    width: int = 64
    """Feature channels."""
    blocks: int = 16
    """Residual blocks."""
    kernel: int = 9
    """Kernel of the first and the last convolution."""

    @property
    def layers(self) -> int:
        """See `NetworkConfig.layers`."""
        return 2 * self.blocks

    def receptive_radius(self, steps: int) -> int:  # noqa: ARG002  # no loop
        """Return the number of LR pixels to each side that influence an output pixel."""
        last = -(-(self.kernel // 2) // SCALE)
        return self.kernel // 2 + 2 * self.blocks + 1 + 1 + 1 + last


class Srcnn(Network):
    """SRCNN (Dong et al. 2014): bicubic upscaling, then three convolutions."""

    name = "srcnn"
    config_type = SrcnnConfig

    def __init__(self, config: SrcnnConfig | None = None) -> None:
        super().__init__()
        self.config: SrcnnConfig = config or SrcnnConfig()
        c = self.config
        widths = (CHANNELS, c.width1, c.width2, CHANNELS)
        kernels = (c.kernel1, c.kernel2, c.kernel3)
        self.layers = nn.ModuleList(
            nn.Conv2d(before, after, kernel, padding=kernel // 2)
            for (before, after), kernel in zip(pairwise(widths), kernels, strict=True)
        )
        filters = torch.from_numpy(phase_filters(BICUBIC_RADIUS).astype(np.float32))
        self.register_buffer("bicubic", filters.repeat(CHANNELS, 1, 1, 1), persistent=False)

    def after_steps(self, lr_B3HW: Tensor, chosen: Sequence[int]) -> list[Tensor]:
        """Return the SR image as a list of one."""
        self.check_steps(max(chosen))
        upscaled = self.upscale(lr_B3HW)
        features = upscaled
        for layer in self.layers[:-1]:
            features = F.relu(layer(features))
        # A global skip, as in VDSR and later networks: it makes training feasible.
        return [upscaled + self.layers[-1](features).to(upscaled.dtype)]

    def upscale(self, lr_B3HW: Tensor) -> Tensor:
        """Upscale ×4 by bicubic, edges clamped, not rounded: 16 phases of one 5x5 filter."""
        padded = F.pad(lr_B3HW, (BICUBIC_RADIUS,) * 4, mode="replicate")
        filters = self.get_buffer("bicubic").to(padded.dtype)
        # The result is added to the output: bfloat16 would cost a quarter of a level.
        with torch.autocast(padded.device.type, enabled=False):
            phases = F.conv2d(padded, filters, groups=CHANNELS)
        return F.pixel_shuffle(phases, SCALE)


class SrResNet(Network):
    """SRGAN's generator (Ledig et al. 2017): residual blocks with batch norm and PReLU."""

    name = "srgan"
    config_type = SrResNetConfig

    def __init__(self, config: SrResNetConfig | None = None) -> None:
        super().__init__()
        self.config: SrResNetConfig = config or SrResNetConfig()
        width, kernel = self.config.width, self.config.kernel
        self.head = nn.Sequential(
            nn.Conv2d(CHANNELS, width, kernel, padding=kernel // 2), nn.PReLU()
        )
        self.blocks = nn.Sequential(*(_ResidualBlock(width) for _ in range(self.config.blocks)))
        self.trunk = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width))
        self.upsample = nn.Sequential(_Double(width), _Double(width))
        self.tail = nn.Conv2d(width, CHANNELS, kernel, padding=kernel // 2)

    def after_steps(self, lr_B3HW: Tensor, chosen: Sequence[int]) -> list[Tensor]:
        """Return the SR image as a list of one."""
        self.check_steps(max(chosen))
        shallow = self.head(lr_B3HW)
        features = shallow + self.trunk(self.blocks(shallow))
        return [cast("Tensor", self.tail(self.upsample(features)))]


class _ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.PReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
        )

    def forward(self, features_BCHW: Tensor) -> Tensor:
        return features_BCHW + cast("Tensor", self.layers(features_BCHW))


class _Double(nn.Sequential):
    """Sub-pixel convolution that doubles height and width."""

    def __init__(self, width: int) -> None:
        convolution = nn.Conv2d(width, 4 * width, 3, padding=1)
        super().__init__(convolution, nn.PixelShuffle(2), nn.PReLU())
