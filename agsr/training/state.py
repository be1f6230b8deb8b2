"""Where a training run stands: for who watches it, and as a file to go on from exactly.

`agsr.training.trainer` writes and reads the safetensors file, and yields `Progress`;
`agsr.training.launch` asks the file for the configuration of a run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from agsr.errors import CheckpointError, in_words
from agsr.model.checkpoint import read_tensors, write_tensors
from agsr.training.config import TrainConfig
from agsr.training.schedule import Schedule

STATE_FILE = "state.safetensors"
"""Name of the state file in a run's folder."""

LAST_FILE = "last.safetensors"
"""Name of the latest averaged weights."""

BEST_FILE = "best.safetensors"
"""Name of the averaged weights with the best score."""

STATE_FORMAT = "agsr-training-state-3"
"""Value of the ``format`` entry in a state file's header."""


@dataclass
class RunState:
    """Where a run stands, but for its tensors."""

    config: TrainConfig
    """What the run does."""
    data: str
    """Fingerprint of the training images."""
    iteration: int = 0
    """Iterations done."""
    patches: int = 0
    """Patches seen, by all ranks."""
    progress: float = 0.0
    """Share of the run that is done, 0 to 1: of its cost, or of its budget of time."""
    best: float | None = None
    """Best validation score so far in this phase; larger is better."""
    scores: dict[str, Any] = field(default_factory=dict)
    """Latest validation: ``{"psnr_y": {"1": 28.2, ...}, "lpips": 0.1}``."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """All validations: iteration, patches seen, steps, and the scores."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands; one is yielded every few iterations and after every validation."""

    iteration: int
    """Iterations done."""
    iterations: int | None
    """Iterations of the whole run; None if time decides."""
    progress: float
    """Share of the run that is done, 0 to 1."""
    terms: dict[str, float]
    """The terms of the loss: means since the report before; ``l1`` is in 8-bit levels."""
    rate: float
    """Learning rate of the last iteration."""
    steps: int
    """Unrolled steps of the current phase."""
    patches_per_second: float
    """Patches per second since the report before, over all ranks."""
    matmul_share: float
    """Arithmetic done by this rank, over what its device does in a large matrix product."""
    seconds_left: float
    """Estimated time to the end of the run, by the cost still to do."""
    scores: dict[str, Any]
    """Latest validation: ``{"psnr_y": {"1": 28.2, ...}, "lpips": 0.1}``."""


def write_state(state: RunState, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Write the state file; the one before is replaced only once the new one is complete."""
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


def read_state(folder: Path) -> tuple[RunState, dict[str, Tensor]]:
    """Read a folder's state file.

    Raises:
        CheckpointError: There is none, or it is damaged or of another version.
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
        # Neither was written before runs could have a budget of time.
        schedule = Schedule.parse(config.schedule)
        progress.setdefault("patches", schedule.patches(progress["iteration"]))
        progress.setdefault("progress", schedule.progress(progress["iteration"]))
        return RunState(config, header["data"], **progress), tensors
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: its header can't be understood: {in_words(error)}; resume with a copy of the "
            "file, or start a new run with another -o"
        ) from None


def _check_progress(progress: Any) -> None:
    """Refuse values that a run would stumble over later.

    Raises:
        ValueError: A value is of another kind.
    """
    found = RunState(TrainConfig(), "", **progress)
    rows = found.history if isinstance(found.history, list) else [None]
    sound = {
        "iteration": type(found.iteration) is int and found.iteration >= 0,
        "patches": type(found.patches) is int and found.patches >= 0,
        "progress": isinstance(found.progress, int | float) and 0 <= found.progress <= 1,
        "best": found.best is None or isinstance(found.best, int | float),
        "scores": isinstance(found.scores, dict),
        "history": all(isinstance(row, dict) for row in rows),
    }
    for name, is_sound in sound.items():
        if not is_sound:
            raise ValueError(f"{name} is {getattr(found, name)!r}")
