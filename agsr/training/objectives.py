"""Training objectives: pixel loss (``psnr``), or pixel, perceptual and adversarial loss (``gan``).

`agsr.training.step.iteration` steps the generator down the loss of an `Objective`, which also
trains the discriminator. Losses are in `agsr.training.losses`, discriminators in
`agsr.training.discriminator`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agsr.contract import SCALE
from agsr.errors import ConfigurationError
from agsr.metrics.lpips import Lpips
from agsr.model.base import place
from agsr.training import losses
from agsr.training.config import TrainConfig
from agsr.training.discriminator import Discriminator, SrganDiscriminator
from agsr.training.distributed import World
from agsr.training.schedule import Schedule
from agsr.training.state_tensors import fill
from agsr.training.step.optimized_module import OptimizedModule, autocast, frozen

GAN_BETAS = (0.5, 0.999)
"""Adam's decay rates for a discriminator, as usual since DCGAN."""


@dataclass
class Objective(ABC):
    """Loss of one stage."""

    config: TrainConfig
    """Configuration of the run."""
    world: World
    """The ranks that train together."""
    log: dict[str, Tensor] = field(default_factory=dict, init=False)
    """Latest terms, detached scalars on the device; reading one synchronizes with it."""

    @abstractmethod
    def loss(self, sr_by_step: Sequence[Tensor], hr: Tensor, iteration: int) -> Tensor:
        """Compute the generator's loss.

        Args:
            sr_by_step: ``(B, 3, 4H, 4W)`` outputs after `agsr.training.schedule.supervised_steps`.
            hr: ``(B, 3, 4H, 4W)`` targets.
            iteration: Index of the iteration, from 0; only its remainder modulo `turns` matters.
        """

    turns: ClassVar[int] = 1
    """Period, in iterations, of the outputs that `loss` uses."""

    def set_rate(self, rate: float) -> None:  # noqa: B027  # no discriminator
        """Set the learning rate of the discriminator, if there is one."""

    def update(self) -> None:  # noqa: B027  # likewise
        """Train the discriminator, if there is one, on the latest images of `loss`."""

    def state(self) -> dict[str, Tensor]:
        """Return the tensors that a resumed run needs."""
        return {}

    def load(self, tensors: Mapping[str, Tensor], iteration: int) -> None:  # noqa: B027  # likewise
        """Restore the tensors of `state`, saved after ``iteration`` iterations."""

    def _pixels(self, sr_by_step: Sequence[Tensor], hr: Tensor) -> Tensor:
        distance = {"l1": losses.l1, "l2": losses.l2}[self.config.pixel_loss]
        pixel = losses.stepwise(distance, sr_by_step, hr, self.config.step_decay)
        self.log["l1"] = losses.l1(sr_by_step[-1].detach(), hr)
        return pixel


class PixelObjective(Objective):
    """The ``psnr`` stage: `agsr.training.losses.stepwise`."""

    def loss(self, sr_by_step: Sequence[Tensor], hr: Tensor, iteration: int) -> Tensor:  # noqa: ARG002
        """Compute the pixel loss of the supervised outputs; with L1, eq. (10)."""
        return self._pixels(sr_by_step, hr)


class GanObjective(Objective):
    """Base of the adversarial objectives: the perceptual loss and the discriminator.

    The costly terms use the output of one step per iteration: the last step in every other
    iteration, the earlier ones in turn in between, so that every step count is trained on them.
    """

    discriminator: OptimizedModule
    """The discriminator and its optimizer."""
    turns = 2

    def __init__(
        self, config: TrainConfig, world: World, features: Lpips | None, discriminator: nn.Module
    ) -> None:
        super().__init__(config, world)
        self._features = place(features, world.device) if features else None
        self.discriminator = OptimizedModule(
            discriminator, world, clip_norm=config.clip_norm, betas=GAN_BETAS
        )
        self._forward = world.parallel(discriminator)

    def set_rate(self, rate: float) -> None:
        """Set the discriminator's learning rate."""
        self.discriminator.set_rate(rate)

    def state(self) -> dict[str, Tensor]:
        """Return the discriminator and the state of its Adam."""
        return self.discriminator.state("critic.")

    def load(self, tensors: Mapping[str, Tensor], iteration: int) -> None:
        """Restore the discriminator and the state of its Adam."""
        self.discriminator.load(tensors, "critic.", iteration)

    def _perceptual(self, sr: Tensor, hr: Tensor) -> Tensor:
        if self._features is None or not self.config.perceptual_weight:
            return hr.new_zeros(())
        distance: Tensor = self._features(sr, hr).mean()
        self.log["perceptual"] = distance.detach()
        return distance

    def _shifts(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Weight faults that features hardly register but people see: colour shifts and grids."""
        colour, phase = losses.colour_shift(sr, hr), losses.phase_shift(sr, hr)
        self.log |= {"colour": colour.detach(), "phase": phase.detach()}
        return self.config.colour_weight * colour + self.config.phase_weight * phase

    def _choose_output(self, sr_by_step: Sequence[Tensor], hr: Tensor, iteration: int) -> Tensor:
        """Choose the output for the costly terms; `update` uses the same one."""
        chosen = sr_by_step[-1 if iteration % 2 == 0 else 0]
        self._fake, self._real = chosen.detach(), hr
        return chosen


class AttentiveGanObjective(GanObjective):
    """The paper's adversarial stage: equations (10) to (15)."""

    def __init__(self, config: TrainConfig, world: World, features: Lpips | None) -> None:
        side = SCALE * Schedule.parse(config.schedule).largest_crop
        discriminator = Discriminator(side, joint=config.probability_weight > 0)
        super().__init__(config, world, features, discriminator)
        self._k = torch.zeros((), device=world.device)

    def loss(self, sr_by_step: Sequence[Tensor], hr: Tensor, iteration: int) -> Tensor:
        """Compute ``L_G`` with all its terms."""
        pixel = self._pixels(sr_by_step, hr)
        sr = self._choose_output(sr_by_step, hr, iteration)
        config = self.config
        with autocast(self.world.device, config.bf16), frozen(self.discriminator.module):
            judged = self.discriminator.module(sr)
            perceptual = self._perceptual(sr, hr)
        return (
            losses.generator_loss(
                pixel,
                losses.reconstruction_error(judged.reconstruction, sr),
                perceptual,
                adversarial_weight=config.adversarial_weight,
                perceptual_weight=config.perceptual_weight,
            )
            + config.probability_weight * _surprise(judged.logit)
            + self._shifts(sr, hr)
        )

    def update(self) -> None:
        """Step down ``L_D`` (eq. 11) plus the probability's cross-entropy, then update ``k``."""
        config = self.config
        with autocast(self.world.device, config.bf16):
            real, fake = self._forward(self._real), self._forward(self._fake)
        real_error = losses.reconstruction_error(real.reconstruction, self._real)
        fake_error = losses.reconstruction_error(fake.reconstruction, self._fake)
        entropy = _cross_entropy(real.logit, fake.logit)
        # With weight 0 the head is detached, and affects nothing else.
        weight = config.probability_weight or 1.0
        loss = losses.discriminator_loss(real_error, fake_error, self._k) + weight * entropy
        self.discriminator.step(loss)
        mean_real, mean_fake = self.world.mean(torch.stack([real_error, fake_error]).detach())
        self._k.copy_(
            losses.next_balance(
                self._k, mean_real, mean_fake, gamma=config.gamma, rate=config.balance_rate
            )
        )
        self.log |= {
            "L_Dr": mean_real,
            "L_Df": mean_fake,
            "k": self._k,
            "convergence": losses.convergence(mean_real, mean_fake, gamma=config.gamma),
            **_probabilities(real.logit, fake.logit),
        }

    def state(self) -> dict[str, Tensor]:
        """Return the discriminator, the state of its Adam, and ``k``."""
        return {**super().state(), "critic.k": self._k}

    def load(self, tensors: Mapping[str, Tensor], iteration: int) -> None:
        """Restore the discriminator, the state of its Adam, and ``k``."""
        super().load(tensors, iteration)
        fill({"critic.k": self._k}, tensors)


class SrganObjective(GanObjective):
    """SRGAN's stage: perceptual loss, and the cross-entropy of a probability."""

    def __init__(self, config: TrainConfig, world: World, features: Lpips | None) -> None:
        super().__init__(config, world, features, SrganDiscriminator())

    def loss(self, sr_by_step: Sequence[Tensor], hr: Tensor, iteration: int) -> Tensor:
        """Compute pixel loss, perceptual loss and ``-log D(G(z))``."""
        pixel = self._pixels(sr_by_step, hr)
        sr = self._choose_output(sr_by_step, hr, iteration)
        with autocast(self.world.device, self.config.bf16), frozen(self.discriminator.module):
            logit = self.discriminator.module(sr)
            perceptual = self._perceptual(sr, hr)
        return (
            pixel
            + self.config.perceptual_weight * perceptual
            + self.config.probability_weight * _surprise(logit)
            + self._shifts(sr, hr)
        )

    def update(self) -> None:
        """Step down the cross-entropy."""
        with autocast(self.world.device, self.config.bf16):
            real, fake = self._forward(self._real), self._forward(self._fake)
        self.discriminator.step(_cross_entropy(real, fake))
        self.log |= _probabilities(real, fake)


def make_objective(config: TrainConfig, world: World, features: Lpips | None) -> Objective:
    """Make the objective of a run's stage and model.

    Args:
        config: Configuration of the run.
        world: The ranks that train together.
        features: VGG16 features of the perceptual loss, for the ``gan`` stage; None skips it.

    Raises:
        ConfigurationError: The schedule doesn't fit the discriminator.
    """
    if config.stage == "psnr":
        return PixelObjective(config, world)
    stages = {"agsr": AttentiveGanObjective, "srgan": SrganObjective}
    crops = {phase.crop for phase in Schedule.parse(config.schedule).phases}
    if len(crops) > 1:
        raise ConfigurationError(
            f"the stage 'gan' needs the same crop in all phases; found {crops}"
        )
    try:
        return stages[config.model](config, world, features)
    except ValueError as error:
        raise ConfigurationError(f"can't build the discriminator: {error}") from None


def _surprise(logit: Tensor) -> Tensor:
    """Return the mean of ``-log`` of the probability of "real"."""
    return F.softplus(-logit.float()).mean()


def _cross_entropy(real: Tensor, fake: Tensor) -> Tensor:
    """Return the binary cross-entropy of logits: real images are 1, generated ones 0."""
    return (_surprise(real) + _surprise(-fake)) / 2


def _probabilities(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """Return the mean probabilities of "real", for the log."""
    logits = {"D(x)": real, "D(G(z))": fake}
    return {name: torch.sigmoid(logit.detach().float()).mean() for name, logit in logits.items()}
