"""Another project's network as a module from RGB to RGB, which runs and is exported alike."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from agsr.bicubic import phase_filters
from agsr.contract import CHANNELS
from agsr.engines.community.loader import RGBA, CommunityNetwork
from agsr.metrics.luma import FULL_RANGE_WEIGHTS

TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""torch's types by precision."""

_REACH = 2
"""Pixels to each side that bicubic reads."""


class PictureNetwork(nn.Module):
    """``(B, 3, H, W)`` float32 RGB in [0, 1] → ``(B, 3, sH, sW)`` float32 RGB, not clipped.

    Args:
        network: The loaded network; changed in place.
        precision: Arithmetic inside; one cast after the input and one before the output.
    """

    def __init__(self, network: CommunityNetwork, precision: str) -> None:
        super().__init__()
        self._inner = TYPES[precision]
        self.network = network.module.to(self._inner)
        self._call = network.call
        self._chroma = Chroma(network.facts.scale) if network.facts.channels == 1 else None
        self._has_alpha = network.facts.channels == RGBA

    def forward(self, lr: Tensor) -> Tensor:
        """Upscale; a luma network's chroma is that of the input, upscaled by bicubic.

        A network with alpha gets an opaque picture: a picture's alpha is upscaled apart from its
        colour, by the same network, as a grey picture.
        """
        if self._chroma is not None:
            luma = self._chroma.luma(lr)
            chroma: Tensor = self._chroma(lr - luma)
            return self._run(luma) + chroma
        if self._has_alpha:
            return self._run(torch.cat([lr, torch.ones_like(lr[:, :1])], dim=1))[:, :CHANNELS]
        return self._run(lr)

    def _run(self, planes: Tensor) -> Tensor:
        large: Tensor = self._call(self.network, planes.to(self._inner)).to(torch.float32)
        return large


class Chroma(nn.Module):
    """Separates luma, and upscales chroma like `agsr.bicubic.upscale_planes`."""

    weights: Tensor
    filters: Tensor

    def __init__(self, scale: int) -> None:
        super().__init__()
        self._scale = scale
        filters = torch.from_numpy(phase_filters(_REACH, scale)).to(torch.float32)
        self.register_buffer("filters", filters.repeat(CHANNELS, 1, 1, 1), persistent=False)
        weights = torch.from_numpy(FULL_RANGE_WEIGHTS).view(1, CHANNELS, 1, 1)
        self.register_buffer("weights", weights.clone(), persistent=False)

    def luma(self, rgb: Tensor) -> Tensor:
        """``(B, 3, H, W)`` → ``(B, 1, H, W)``, full range."""
        return F.conv2d(rgb, self.weights)

    def forward(self, chroma: Tensor) -> Tensor:
        """``(B, 3, H, W)`` → ``(B, 3, sH, sW)``."""
        padded = F.pad(chroma, (_REACH,) * 4, mode="replicate")
        phases = F.conv2d(padded, self.filters, groups=CHANNELS)
        large: Tensor = F.pixel_shuffle(phases, self._scale)
        return large
