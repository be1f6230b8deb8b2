"""The attentive generator (paper, Fig. 3-5, eq. 1-9), from LR image to ×4 SR image.

Data flow: shallow features → ``steps`` × `agsr.model.attention.AttentiveStep` with shared weights →
non-linear mapping → one convolution and a pixel shuffle. Trained by `agsr.training.launch`, stored
by `agsr.model.checkpoint`, exported by `agsr.export`, run by `agsr.engines`.

Shape suffixes: B batch, C feature width, H and W low-resolution height and width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agsr.assembly.config import GENERATOR, GREY
from agsr.assembly.config import GeneratorConfig as GeneratorConfig
from agsr.contract import CHANNELS, DEFAULT_STEPS, MAX_STEPS, SCALE
from agsr.model.attention import AttentiveStep
from agsr.model.base import Network


class MappingPair(nn.Module):
    """Two 3x3 convolutions, each with ReLU, and a skip around both."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(width, inner, 3, padding=1)
        self.widen = nn.Conv2d(inner, width, 3, padding=1)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        """Refine ``(B, C, H, W)`` features; the shape is unchanged."""
        return features_BCHW + F.relu(self.widen(F.relu(self.narrow(features_BCHW))))


class Generator(Network):
    """The paper's network: any input size, and one set of weights for any number of steps.

    >>> tiny = Generator(GeneratorConfig(width=8, growth=4, mapping_width=4))
    >>> tiny(torch.zeros(1, 3, 5, 7), steps=2).shape
    torch.Size([1, 3, 20, 28])
    """

    name = GENERATOR
    config_type = GeneratorConfig
    max_steps = MAX_STEPS
    default_steps = DEFAULT_STEPS
    regions = ("step", "reconstruct")  # compiling the loop around them would take ten times as long

    def __init__(self, config: GeneratorConfig | None = None) -> None:
        super().__init__()
        self.config: GeneratorConfig = config or GeneratorConfig()
        width = self.config.width
        self.shallow1 = nn.Conv2d(CHANNELS, width, 3, padding=1)
        self.shallow2 = nn.Conv2d(width, width, 3, padding=1)
        self.step = AttentiveStep(
            width,
            self.config.growth,
            self.config.dense_layers,
            self.config.dense_blocks,
            self.config.gru_kernel,
        )
        pairs = [
            MappingPair(width, self.config.mapping_width) for _ in range(self.config.mapping_pairs)
        ]
        self.mapping = nn.Sequential(*pairs)
        self.upsample = nn.Conv2d(width, CHANNELS * SCALE**2, 3, padding=1)

    def forward(self, lr_B3HW: Tensor, steps: int = DEFAULT_STEPS) -> Tensor:
        """See `Network.forward`."""
        return super().forward(lr_B3HW, steps)

    def after_steps(self, lr_B3HW: Tensor, chosen: Sequence[int]) -> list[Tensor]:
        """See `Network.after_steps`; only the chosen steps are reconstructed."""
        unrolled = enumerate(self.unroll(lr_B3HW, max(chosen)), 1)
        return [self.reconstruct(f, lr_B3HW) for step, (f, _) in unrolled if step in chosen]

    def attention_maps(self, lr_B3HW: Tensor, steps: int = DEFAULT_STEPS) -> list[Tensor]:
        """Return the maps ``A_1 ... A_steps``, each ``(B, 1, H, W)`` in [0, 1] (paper, Fig. 4)."""
        return [attention for _, attention in self.unroll(lr_B3HW, steps)]

    def unroll(self, lr_B3HW: Tensor, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield ``(F_t, A_t)`` for t = 1 ... ``steps`` (eq. 1, 2, 7)."""
        self.check_steps(steps)
        shallow = self.shallow2(self.shallow1(lr_B3HW - GREY))
        features, hidden = shallow, torch.zeros_like(shallow)
        attention = torch.full_like(shallow[:, :1], GREY)
        for _ in range(steps):
            hidden, attention = self.step(features, attention, hidden)
            features = shallow + attention * hidden
            yield features, attention

    def reconstruct(self, features_BCHW: Tensor, lr_B3HW: Tensor) -> Tensor:
        """Map features to the SR image (eq. 8, 9).

        The LR pixels, each repeated for its 4x4 output pixels, are added before the pixel shuffle.
        """
        residual = self.upsample(self.refine(features_BCHW))
        return F.pixel_shuffle(residual + lr_B3HW.repeat_interleave(SCALE**2, dim=1), SCALE)

    def refine(self, features_BCHW: Tensor) -> Tensor:
        """Compute the input of the last convolution (eq. 8); the shape is unchanged."""
        refined: Tensor = features_BCHW + self.mapping(features_BCHW)
        return refined
