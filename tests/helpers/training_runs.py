"""Short training runs of small networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from conftest import TINY
from torch import Tensor

from agsr.datasets.pairs import Pair
from agsr.model.checkpoint import load_checkpoint
from agsr.training.config import TrainConfig
from agsr.training.distributed import World
from agsr.training.step.optimizer import MIN_CHANNELS
from agsr.training.trainer import Trainer

ALONE = World(torch.device("cpu"))
WIDE = replace(TINY, width=MIN_CHANNELS, growth=MIN_CHANNELS)  # for Muon to have a part
SHORT = TrainConfig(
    network=WIDE, schedule="1x6@8/4,3x6@8/2", warmup=2, validate_every=4, bf16=False
)


def run(folder: Path, pairs: list[Pair], config: TrainConfig = SHORT) -> Trainer:
    trainer = Trainer(config, pairs, pairs, folder)
    for _ in trainer.run(report_every=1):
        pass
    return trainer


def weights(folder: Path, name: str = "last") -> dict[str, Tensor]:
    return dict(load_checkpoint(folder / f"{name}.safetensors").weights)


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
