"""What a stage of training minimises: pixels, or pixels, features and a discriminator's verdict.

`agsr.training.trainer` owns the generator's step; an `Objective` gives its loss, and trains what
stands beside the generator. Losses are in `agsr.training.losses`, discriminators in
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
from agsr.training.step.optimized_module import Learner, autocast, frozen

GAN_BETAS = (0.5, 0.999)
"""Adam's decay rates for a discriminator, as GANs have had them since DCGAN."""


@dataclass
class Objective(ABC):
    """One stage's loss."""

    config: TrainConfig
    """What the run does."""
    world: World
    """The ranks that train together."""
    log: dict[str, Tensor] = field(default_factory=dict, init=False)
    """Latest terms, detached scalars on the device: reading one waits for it."""

    @abstractmethod
    def loss(self, sr_by_step: Sequence[Tensor], hr: Tensor, iteration: int) -> Tensor:
        """The generator's loss.

        Args:
            sr_by_step: ``(B, 3, 4H, 4W)`` outputs after `agsr.training.schedule.supervised_steps`.
            hr: ``(B, 3, 4H, 4W)`` targets.
            iteration: Index of the iteration, from 0; only its rest by `turns` matters.
        """

    turns: ClassVar[int] = 1
    """Iterations after which `loss` looks at the same outputs again."""

    def set_rate(self, rate: float) -> None:  # noqa: B027  # nothing beside the generator
        """Set the learning rate of what stands beside the generator."""

    def update(self) -> None:  # noqa: B027  # likewise
        """Train what stands beside the generator on the images `loss` saw last."""

    def state(self) -> dict[str, Tensor]:
        """Everything that a resumed run needs of this objective."""
        return {}

    def load(self, tensors: Mapping[str, Tensor], iteration: int) -> None:  # noqa: B027  # likewise
        """Take over what `state` gave after ``iteration`` iterations."""

    def _pixels(self, sr_by_step: Sequence[Tensor], hr: Tensor) -> Tensor:
        distance = {"l1": losses.l1, "l2": losses.l2}[self.config.pixel_loss]
        pixel = losses.stepwise(distance, sr_by_step, hr, self.config.step_decay)
        self.log["l1"] = losses.l1(sr_by_step[-1].detach(), hr)
        return pixel


class PixelObjective(Objective):
    """The ``psnr`` stage: `agsr.training.losses.stepwise`."""

    def loss(self, sr_by_step: Sequence[Tensor], hr: Tensor, iteration: int) -> Tensor:  # noqa: ARG002
        """The pixel loss of the supervised outputs; with L1, eq. (10)."""
        return self._pixels(sr_by_step, hr)


class GanObjective(Objective):
    """What the two adversarial objectives share: perceptual loss, and whom the critic sees.

    The costly terms look at one step's output per iteration: the last in every other iteration,
    the earlier ones in turn between, so that every step count is trained for them.
    """

    critic: Learner
    """The discriminator."""
    turns = 2

    def __init__(
        self, config: TrainConfig, world: World, features: Lpips | None, discriminator: nn.Module
    ) -> None:
        super().__init__(config, world)
        self._features = place(features, world.device) if features else None
        self.critic = Learner(discriminator, world, clip_norm=config.clip_norm, betas=GAN_BETAS)
        self._judge = world.parallel(discriminator)

    def set_rate(self, rate: float) -> None:
        """Set the discriminator's learning rate."""
        self.critic.set_rate(rate)

    def state(self) -> dict[str, Tensor]:
        """The discriminator and its Adam."""
        return self.critic.state("critic.")

    def load(self, tensors: Mapping[str, Tensor], iteration: int) -> None:
        """Take over the discriminator and its Adam."""
        self.critic.load(tensors, "critic.", iteration)

    def _perceptual(self, sr: Tensor, hr: Tensor) -> Tensor:
        if self._features is None or not self.config.perceptual_weight:
            return hr.new_zeros(())
        distance: Tensor = self._features(sr, hr).mean()
        self.log["perceptual"] = distance.detach()
        return distance

    def _shifts(self, sr: Tensor, hr: Tensor) -> Tensor:
        """What features hardly notice and people do: a shift of local colours, a grid."""
        colour, phase = losses.colour_shift(sr, hr), losses.phase_shift(sr, hr)
        self.log |= {"colour": colour.detach(), "phase": phase.detach()}
        return self.config.colour_weight * colour + self.config.phase_weight * phase

    def _look_at(self, sr_by_step: Sequence[Tensor], hr: Tensor, iteration: int) -> Tensor:
        """Choose the output that the costly terms see; `update` sees the same."""
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
        """``L_G`` with all its terms."""
        pixel = self._pixels(sr_by_step, hr)
        sr = self._look_at(sr_by_step, hr, iteration)
        config = self.config
        with autocast(self.world.device, config.bf16), frozen(self.critic.module):
            verdict = self.critic.module(sr)
            perceptual = self._perceptual(sr, hr)
        return (
            losses.generator_loss(
                pixel,
                losses.reconstruction_error(verdict.reconstruction, sr),
                perceptual,
                adversarial_weight=config.adversarial_weight,
                perceptual_weight=config.perceptual_weight,
            )
            + config.probability_weight * _surprise(verdict.logit)
            + self._shifts(sr, hr)
        )

    def update(self) -> None:
        """One step down ``L_D`` (eq. 11) and the probability's cross-entropy; then ``k``."""
        config = self.config
        with autocast(self.world.device, config.bf16):
            real, fake = self._judge(self._real), self._judge(self._fake)
        real_error = losses.reconstruction_error(real.reconstruction, self._real)
        fake_error = losses.reconstruction_error(fake.reconstruction, self._fake)
        doubt = _cross_entropy(real.logit, fake.logit)
        weight = config.probability_weight or 1.0  # a head that only watches disturbs nothing
        loss = losses.discriminator_loss(real_error, fake_error, self._k) + weight * doubt
        self.critic.step(loss)
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
        """The discriminator, its Adam, and ``k``."""
        return {**super().state(), "critic.k": self._k}

    def load(self, tensors: Mapping[str, Tensor], iteration: int) -> None:
        """Take over the discriminator, its Adam, and ``k``."""
        super().load(tensors, iteration)
        fill({"critic.k": self._k}, tensors)


class SrganObjective(GanObjective):
    """SRGAN's stage: features, and the cross-entropy of a probability."""

    def __init__(self, config: TrainConfig, world: World, features: Lpips | None) -> None:
        super().__init__(config, world, features, SrganDiscriminator())

    def loss(self, sr_by_step: Sequence[Tensor], hr: Tensor, iteration: int) -> Tensor:
        """Pixels, features and ``-log D(G(z))``."""
        pixel = self._pixels(sr_by_step, hr)
        sr = self._look_at(sr_by_step, hr, iteration)
        with autocast(self.world.device, self.config.bf16), frozen(self.critic.module):
            logit = self.critic.module(sr)
            perceptual = self._perceptual(sr, hr)
        return (
            pixel
            + self.config.perceptual_weight * perceptual
            + self.config.probability_weight * _surprise(logit)
            + self._shifts(sr, hr)
        )

    def update(self) -> None:
        """One step down the cross-entropy."""
        with autocast(self.world.device, self.config.bf16):
            real, fake = self._judge(self._real), self._judge(self._fake)
        self.critic.step(_cross_entropy(real, fake))
        self.log |= _probabilities(real, fake)


def make_objective(config: TrainConfig, world: World, features: Lpips | None) -> Objective:
    """The objective of a run's stage and model.

    Args:
        config: What the run does.
        world: The ranks that train together.
        features: VGG16 features of the perceptual loss, for the ``gan`` stage.

    Raises:
        ConfigurationError: The schedule does not fit the discriminator.
    """
    if config.stage == "psnr":
        return PixelObjective(config, world)
    stages = {"agsr": AttentiveGanObjective, "srgan": SrganObjective}
    crops = {phase.crop for phase in Schedule.parse(config.schedule).phases}
    if len(crops) > 1:
        raise ConfigurationError(
            f"the stage 'gan' needs one crop in all phases, for the discriminator; found {crops}"
        )
    try:
        return stages[config.model](config, world, features)
    except ValueError as error:
        raise ConfigurationError(f"the discriminator can't be built: {error}") from None


def _surprise(logit: Tensor) -> Tensor:
    """Mean of ``-log`` of the probability of "real"."""
    return F.softplus(-logit.float()).mean()


def _cross_entropy(real: Tensor, fake: Tensor) -> Tensor:
    """Binary cross-entropy of logits: real images are 1, generated ones 0."""
    return (_surprise(real) + _surprise(-fake)) / 2


def _probabilities(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """Mean probabilities of "real", for the log."""
    logits = {"D(x)": real, "D(G(z))": fake}
    return {name: torch.sigmoid(logit.detach().float()).mean() for name, logit in logits.items()}
