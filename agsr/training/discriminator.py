"""Discriminators: the paper's (Fig. 6), and SRGAN's for the comparison.

`agsr.training.objectives` trains them beside a generator. They are part of the training state, not
of shipped weights.

Shape suffixes: B batch, S side of the HR patches that a discriminator is made for.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agsr.contract import CHANNELS

SLOPE = 0.2
"""Negative slope of the activations, as in DCGAN, on which BEGAN and SRGAN build."""

REDUCTION = 16
"""Factor by which the encoder's features are smaller than its input, along each axis."""


class DiscriminatorOutput(NamedTuple):
    """Output of the paper's discriminator for a batch of images."""

    reconstruction: Tensor
    """``D(x)`` of eq. (12) and (13): ``(B, 3, S, S)``."""
    logit: Tensor
    """Input of the sigmoid of Fig. 6, ``(B, 1)``: above 0 means real."""


class Discriminator(nn.Module):
    """Seven convolutions with two heads.

    Fig. 6's flatten → fully connected → sigmoid gives a probability. Eq. (12) and (13) need an
    image, which a small decoder makes from the same features.

    Args:
        side: Side S of the square HR patches, a multiple of `REDUCTION`.
        width: Channels of the first convolution; they double at each second reduction.
        joint: Let the probability's gradient reach the seven convolutions. Otherwise the
            probability is only observed, and eq. (11) alone trains the encoder.

    Raises:
        ValueError: ``side`` is not a multiple of `REDUCTION`.
    """

    def __init__(self, side: int, width: int = 32, *, joint: bool = False) -> None:
        super().__init__()
        if side < REDUCTION or side % REDUCTION:
            raise ValueError(f"side is {side}; expected a multiple of {REDUCTION}")
        self._joint = joint
        widths = (CHANNELS, width, width, 2 * width, 2 * width, 4 * width, 4 * width, 4 * width)
        strides = (1, 2, 1, 2, 1, 2, 2)
        self.encoder = nn.Sequential()
        for (before, after), stride in zip(pairwise(widths), strides, strict=True):
            self.encoder.append(nn.Conv2d(before, after, 3, stride, padding=1))
            self.encoder.append(nn.LeakyReLU(SLOPE))
        self.probability = nn.Linear(4 * width * (side // REDUCTION) ** 2, 1)
        self.decoder = nn.Sequential(
            nn.Conv2d(4 * width, 4 * width, 3, padding=1),
            nn.PixelShuffle(2),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.PixelShuffle(2),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(width // 2, CHANNELS * 16, 3, padding=1),
            nn.PixelShuffle(4),
        )
        for module in (*self.encoder, *self.decoder):
            if isinstance(module, nn.Conv2d):  # torch's default would attenuate the signal
                nn.init.kaiming_normal_(module.weight, SLOPE)

    def forward(self, image_B3SS: Tensor) -> DiscriminatorOutput:
        """Judge images ``(B, 3, S, S)`` in [0, 1]."""
        features = self.encoder(image_B3SS - 0.5)
        seen = features if self._joint else features.detach()
        return DiscriminatorOutput(self.decoder(features) + 0.5, self.probability(seen.flatten(1)))


class SrganDiscriminator(nn.Module):
    """SRGAN's eight convolutions with batch norm, then two dense layers.

    Features are averaged over the image before the dense layers, so that any patch size fits (the
    published network flattens 96x96 patches).
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        widths = [width, width, 2 * width, 2 * width, 4 * width, 4 * width, 8 * width, 8 * width]
        self.first = nn.Conv2d(CHANNELS, width, 3, padding=1)
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(pairwise(widths)):
            stride = 2 if index % 2 == 0 else 1
            layers += [nn.Conv2d(before, after, 3, stride, padding=1)]
            layers += [nn.BatchNorm2d(after), nn.LeakyReLU(SLOPE)]
        self.layers = nn.Sequential(*layers)
        self.dense = nn.Sequential(
            nn.Linear(8 * width, 16 * width), nn.LeakyReLU(SLOPE), nn.Linear(16 * width, 1)
        )

    def forward(self, image_B3SS: Tensor) -> Tensor:
        """Return logits ``(B, 1)`` of images ``(B, 3, S, S)`` in [0, 1]; above 0 means real."""
        features = self.layers(F.leaky_relu(self.first(image_B3SS * 2 - 1), SLOPE))
        return cast("Tensor", self.dense(torch.mean(features, dim=(2, 3))))
