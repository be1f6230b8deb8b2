"""The configuration of a training run, stored in its state file and in its weights."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from agsr.datasets.degradation import Degradation
from agsr.model.base import NetworkConfig
from agsr.model.registry import DEFAULT_NETWORK, make_config
from agsr.training.schedule import Schedule

Stage = Literal["psnr", "gan"]
"""Training objective: pixel loss, or pixel, perceptual and adversarial loss."""

PixelLoss = Literal["l1", "l2"]
"""Pixel loss: a function of `agsr.training.losses`."""

OptimizerName = Literal["muon", "adam"]
"""Optimizer (`agsr.training.step.optimizer`): Muon for hidden convolutions, or Adam."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Configuration of a run. Stored in its state file and in its weights.

    >>> config = TrainConfig().changed({"steps_typo": 4})
    Traceback (most recent call last):
    ValueError: agsr has no steps_typo; known: width, growth, dense_layers, dense_blocks, ...
    """

    model: str = DEFAULT_NETWORK
    """Name of the network, a key of `agsr.model.registry.NETWORKS`."""
    network: NetworkConfig = field(default_factory=lambda: make_config(DEFAULT_NETWORK))
    """Shape of the network."""
    stage: Stage = "psnr"
    """Training objective."""
    degradation: Degradation = "bicubic"
    """Method of making LR images, for training and validation."""
    init: str = ""
    """`Checkpoint.weights_hash` of the initial weights; empty means random weights."""
    schedule: str = "1x4000@32/16,2x2600@32/16,4x12000@32/8,4x7000@48/8"
    """Phases, in the form of `agsr.training.schedule.Schedule.parse`."""
    budget: float = 0.0
    """Length of the run in minutes, divided among phases in proportion to their cost. 0 means that
    the schedule's iterations determine the length."""
    optimizer: OptimizerName = "muon"
    """Optimizer of the network."""
    peak_rate: float = 3e-3
    """Learning rate after warm-up."""
    final_rate: float = 2e-5
    """Learning rate at the end."""
    warmup: int = 200
    """Iterations of linear warm-up."""
    clip_norm: float = 1.0
    """Largest norm of the gradient."""
    ema_decay: float = 0.999
    """Decay per iteration of the averaged weights."""
    pixel_loss: PixelLoss = "l1"
    """Pixel loss: the paper's L1, or L2 for a last phase that maximizes PSNR."""
    step_decay: float = 0.4
    """Weight of the earlier step's pixel loss relative to the last one's; 1 weights both alike."""
    adversarial_weight: float = 0.0
    """``λ_adv``: weight of the discriminator's reconstruction error in the generator's loss."""
    perceptual_weight: float = 0.0
    """``λ_p``: weight of the LPIPS distance of VGG16 features."""
    colour_weight: float = 0.0
    """Weight of `agsr.training.losses.colour_shift` in the stage ``gan``."""
    phase_weight: float = 0.0
    """Weight of `agsr.training.losses.phase_shift` in the stage ``gan``. It must cost more than the
    perceptual loss gains from a grid: 24 for a ``perceptual_weight`` of 1 (docs/training.md)."""
    probability_weight: float = 0.0
    """Weight of ``-log D(G(z))``, the sigmoid of Fig. 6; with 0 it is only logged."""
    critic_rate: float = 4e-4
    """Learning rate of the discriminator after warm-up; it decays like the generator's."""
    gamma: float = 1.0
    """``γ`` of eq. (15), the target ratio of the discriminator's errors. SR images are smoother and
    easier to reconstruct than real ones: below their natural ratio ``k`` stays 0."""
    balance_rate: float = 1e-2
    """``λ_k`` of eq. (11)."""
    seed: int = 0
    """Seed of the initial weights and of the data order."""
    validate_every: int = 1000
    """Iterations between validations."""
    bf16: bool = True
    """Autocast to bfloat16 (AMX, tensor cores); weights and optimizer state stay float32."""

    def __post_init__(self) -> None:
        Schedule.parse(self.schedule)
        words = (
            ("stage", Stage),
            ("degradation", Degradation),
            ("optimizer", OptimizerName),
            ("pixel_loss", PixelLoss),
        )
        for name, choices in words:
            if (value := getattr(self, name)) not in get_args(choices):
                raise ValueError(f"{name} is {value!r}; expected {' or '.join(get_args(choices))}")
        if self.stage == "gan" and self.pixel_loss != "l1":
            raise ValueError("pixel_loss is for the stage psnr; gan always uses the paper's L1")
        for field_ in dataclasses.fields(self):
            value = getattr(self, field_.name)
            if isinstance(value, int | float) and not 0 <= value < float("inf"):
                raise ValueError(f"{field_.name} is {value}; expected 0 or more")
            if field_.name in ("peak_rate", "validate_every") and not value:
                raise ValueError(f"{field_.name} is 0; expected more")

    @classmethod
    def from_json(cls, text: str) -> TrainConfig:
        """Rebuild a configuration from the text of `to_json`.

        Raises:
            ValueError: The text is from another version, or a value is out of range.
        """
        values = json.loads(text)
        network = make_config(values["model"], values["network"])
        return cls(**{**values, "network": network})

    def to_json(self) -> str:
        """Return the configuration as JSON, for `from_json`."""
        return json.dumps(self.to_record())

    def to_record(self) -> dict[str, Any]:
        """Return the configuration as plain values."""
        return dataclasses.asdict(self)

    def changed(self, changes: Mapping[str, object]) -> TrainConfig:
        """Return a copy with changed values, also of fields of the network's configuration.

        Raises:
            ValueError: A field is unknown, or a value has the wrong type or is out of range.
        """
        own = {f.name: f for f in dataclasses.fields(self)}
        config = self
        if "model" in changes and changes["model"] != self.model:
            name = str(changes["model"])
            config = dataclasses.replace(config, model=name, network=make_config(name))
        shape = {k: v for k, v in changes.items() if k not in own}
        if shape:
            shape = {**vars(config.network), **shape}
            config = dataclasses.replace(config, network=make_config(config.model, shape))
        given = {k: v for k, v in changes.items() if k in own}
        for name, value in given.items():
            present = getattr(config, name)
            if isinstance(present, float) and isinstance(value, int):
                given[name] = float(value)
            elif type(value) is not type(present):
                raise ValueError(f"{name} is {value!r}; expected a value like {present!r}")
        return dataclasses.replace(config, **given)  # type: ignore[arg-type]  # checked just above


STAGE_DEFAULTS: dict[tuple[str, Stage], dict[str, object]] = {
    ("agsr", "psnr"): {},
    ("srcnn", "psnr"): {"schedule": "1x30000@32/16", "optimizer": "adam", "peak_rate": 1e-3},
    ("srgan", "psnr"): {"schedule": "1x30000@32/16", "optimizer": "adam", "peak_rate": 1e-3},
    ("agsr", "gan"): {
        "schedule": "4x3000@24/8",
        "peak_rate": 4e-4,
        "final_rate": 1e-6,
        "ema_decay": 0.99,
        "step_decay": 1.0,
        "critic_rate": 1e-3,
        "probability_weight": 2e-2,
        "adversarial_weight": 0.1,
        "perceptual_weight": 1.0,
        "colour_weight": 4.0,
        "phase_weight": 24.0,
        "validate_every": 250,
    },
    ("srgan", "gan"): {
        "schedule": "1x3000@24/8",
        "optimizer": "adam",
        "peak_rate": 1e-4,
        "final_rate": 1e-6,
        "perceptual_weight": 1.0,
        "colour_weight": 4.0,
        "phase_weight": 24.0,
        "probability_weight": 1e-2,
        "validate_every": 250,
    },
}
"""Default settings by model and stage."""
