"""Starting or resuming a training run: data, configuration and trainer put together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agsr.contract import SCALE
from agsr.data import load_pairs
from agsr.errors import TrainingError
from agsr.schedule import Schedule
from agsr.train_config import TrainConfig
from agsr.trainer import STATE_FILE, Trainer, check_device, saved_config

_OPTIONS = {"rate": "peak_rate"}


def start_training(
    data: Sequence[Path],
    validation: Sequence[Path],
    folder: Path,
    *,
    resume: bool = False,
    device: str = "cpu",
    changes: Mapping[str, Any] | None = None,
) -> Trainer:
    """Load the data and make a trainer, fresh or as the folder's state file left it.

    Args:
        data: Tar files and folders of training images.
        validation: Tar files and folders of images that choose the best checkpoint.
        folder: Where the run's files go.
        resume: Go on from the state file in the folder; its configuration holds where ``changes``
            says nothing.
        device: torch device.
        changes: Fields of `agsr.train_config.TrainConfig` to set; None means unchanged. ``rate``
            is ``peak_rate``.

    Raises:
        TrainingError: The configuration makes no sense, the device does not exist, the folder
            already holds a run, or the run to go on with had other images.
        DatasetError: An image source is missing or empty.
        CheckpointError: The state to go on from is missing or damaged.
    """
    check_device(device)
    if not resume and (folder / STATE_FILE).exists():
        raise TrainingError(f"{folder} holds a run: go on with --resume, or choose another -o")
    config = _configure(saved_config(folder) if resume else TrainConfig(), changes or {})
    largest = SCALE * Schedule.parse(config.schedule).largest_crop
    trainer = Trainer(
        config,
        load_pairs(data, min_side=largest),
        load_pairs(validation, min_side=4 * SCALE) if validation else [],
        folder,
        device,
    )
    if resume:
        trainer.restore()
    return trainer


def _configure(config: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    given = {_OPTIONS.get(k, k): value for k, value in changes.items() if value is not None}
    try:
        config = dataclasses.replace(config, **given)
        Schedule.parse(config.schedule)
    except ValueError as error:
        raise TrainingError(f"the configuration makes no sense: {error}") from None
    return config
