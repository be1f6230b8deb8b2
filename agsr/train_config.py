"""The configuration of a training run: in its state file, and in the weights it makes."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field

from agsr.generator import GeneratorConfig

DEFAULT_SCHEDULE = "1x24000@32/16,2x3000@32/16,4x4500@48/8"
"""About two hours on two cores with AMX."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What a run does. Stored in its state file and in the weights it makes."""

    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    """Shape of the network."""
    schedule: str = DEFAULT_SCHEDULE
    """Phases, as `agsr.schedule.Schedule.parse` reads them."""
    peak_rate: float = 1.5e-3
    """Learning rate after warm-up."""
    final_rate: float = 1e-5
    """Learning rate at the end."""
    warmup: int = 200
    """Iterations of linear warm-up."""
    clip_norm: float = 1.0
    """Largest norm of the gradient."""
    ema_decay: float = 0.999
    """Decay of the averaged weights per iteration."""
    seed: int = 0
    """Seed of the initial weights and of the data order."""
    validate_every: int = 1000
    """Iterations between validations."""
    bf16: bool = True
    """Autocast to bfloat16 (AMX, tensor cores); weights and optimizer stay float32."""

    @classmethod
    def from_json(cls, text: str) -> TrainConfig:
        """Rebuild a configuration from ``json.dumps(dataclasses.asdict(config))``."""
        values = json.loads(text)
        return cls(**{**values, "generator": GeneratorConfig(**values["generator"])})

    def to_json(self) -> str:
        """The configuration as JSON, for `from_json`."""
        return json.dumps(dataclasses.asdict(self))
