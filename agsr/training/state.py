"""State of a training run: progress reports, and the state file for exact resumption.

`agsr.training.trainer` writes and reads the safetensors file, and yields `TrainingProgress`.
`agsr.training.launch` reads the run's configuration from the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from agsr.errors import CheckpointError
from agsr.model.checkpoint import read_tensors, write_tensors
from agsr.system.text import in_words
from agsr.training.config import TrainConfig
from agsr.training.schedule import Schedule

STATE_FILE = "state.safetensors"
"""State file in a run's folder."""

LAST_FILE = "last.safetensors"
"""Latest averaged weights."""

BEST_FILE = "best.safetensors"
"""Averaged weights with the best score."""

STATE_FORMAT = "agsr-training-state-3"
"""Value of the ``format`` entry in a state file's header."""


@dataclass
class TrainingState:
    """State of a run, except its tensors."""

    config: TrainConfig
    """Configuration of the run."""
    data: str
    """Fingerprint of the training images."""
    iteration: int = 0
    """Completed iterations."""
    patches: int = 0
    """Patches used, by all ranks."""
    progress: float = 0.0
    """Completed share of the run, 0 to 1: of its cost, or of its time budget."""
    best: float | None = None
    """Best validation score so far in this phase; larger is better."""
    scores: dict[str, Any] = field(default_factory=dict)
    """Latest validation: ``{"psnr_y": {"1": 28.2, ...}, "lpips": 0.1}``."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """All validations: iteration, patches, steps, and scores."""


@dataclass(frozen=True, kw_only=True)
class TrainingProgress:
    """Progress report, yielded every few iterations and after every validation."""

    iteration: int
    """Completed iterations."""
    iterations: int | None
    """Iterations of the whole run; None with a time budget."""
    progress: float
    """Completed share of the run, 0 to 1."""
    terms: dict[str, float]
    """Terms of the loss: means since the previous report; ``l1`` is in 8-bit levels."""
    rate: float
    """Learning rate of the last iteration."""
    steps: int
    """Unrolled steps of the current phase."""
    patches_per_second: float
    """Patches per second since the previous report, over all ranks."""
    matmul_share: float
    """Model FLOPs utilization (MFU) of this rank: its FLOP/s as a share of those of a large matrix
    product on the same device."""
    seconds_left: float
    """Estimated time to the end of the run, from the remaining cost."""
    scores: dict[str, Any]
    """Latest validation: ``{"psnr_y": {"1": 28.2, ...}, "lpips": 0.1}``."""


def write_state(state: TrainingState, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Write the state file; the previous one is replaced only when the new one is complete."""
    header = {
        "format": STATE_FORMAT,
        "config": state.config.to_json(),
        "data": state.data,
        "progress": json.dumps(
            {
                "iteration": state.iteration,
                "patches": state.patches,
                "progress": state.progress,
                "best": state.best,
                "scores": state.scores,
                "history": state.history,
            }
        ),
    }
    write_tensors(tensors, header, folder / STATE_FILE)


def read_state(folder: Path) -> tuple[TrainingState, dict[str, Tensor]]:
    """Read a folder's state file.

    Raises:
        CheckpointError: The file is missing, damaged or of another version.
    """
    path = folder / STATE_FILE
    tensors, header = read_tensors(path)
    if header.get("format") != STATE_FORMAT:
        raise CheckpointError(
            f"{path}: found format {header.get('format')!r}, expected {STATE_FORMAT!r}"
        )
    try:
        config = TrainConfig.from_json(header["config"])
        progress = json.loads(header["progress"])
        _check_progress(progress)
        # Files from before time budgets have neither.
        schedule = Schedule.parse(config.schedule)
        progress.setdefault("patches", schedule.patches(progress["iteration"]))
        progress.setdefault("progress", schedule.progress(progress["iteration"]))
        return TrainingState(config, header["data"], **progress), tensors
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: invalid header: {in_words(error)}; resume from a copy of the file, or "
            "start a new run with another -o"
        ) from None


def _check_progress(progress: Any) -> None:
    """Reject values that would make the run fail later.

    Raises:
        ValueError: A value has the wrong type or is out of range.
    """
    found = TrainingState(TrainConfig(), "", **progress)
    rows = found.history if isinstance(found.history, list) else [None]
    valid = {
        "iteration": type(found.iteration) is int and found.iteration >= 0,
        "patches": type(found.patches) is int and found.patches >= 0,
        "progress": isinstance(found.progress, int | float) and 0 <= found.progress <= 1,
        "best": found.best is None or isinstance(found.best, int | float),
        "scores": isinstance(found.scores, dict),
        "history": all(isinstance(row, dict) for row in rows),
    }
    for name, is_valid in valid.items():
        if not is_valid:
            raise ValueError(f"{name} is {getattr(found, name)!r}")
