"""Starts or resumes a training run: loads data, resolves the configuration, makes the trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from agsr.contract import SCALE
from agsr.datasets.pairs import Pair, degrade_pairs, load_pairs, missing_source
from agsr.errors import (
    CheckpointError,
    ConfigurationError,
    TrainingError,
    UnknownSetError,
)
from agsr.metrics.lpips import Lpips
from agsr.model.checkpoint import Checkpoint, load_checkpoint
from agsr.model.registry import DEFAULT_NETWORK, NETWORKS
from agsr.pretrained import find_checkpoint, require_file
from agsr.system.atomic_file import check_writable
from agsr.training.config import STAGE_DEFAULTS, Stage, TrainConfig
from agsr.training.distributed import World
from agsr.training.patch_sampler import smallest_side
from agsr.training.schedule import Schedule, check_schedule
from agsr.training.state import BEST_FILE, LAST_FILE, STATE_FILE, read_state
from agsr.training.step.kernels import Kernels
from agsr.training.throughput import has_fast_bf16
from agsr.training.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Input files of a run."""

    data: Sequence[Path]
    """Tar files and folders of training images."""
    validation: Sequence[Path] = ()
    """Tar files and folders of images for choosing the best checkpoint."""
    init: str | None = None
    """Initial weights: a shipped name or a file; None means random weights."""
    features: Path | None = None
    """``vgg16.npz``: feature network of the perceptual loss."""
    lpips: Path | None = None
    """``alexnet.npz``: LPIPS, by which the ``gan`` stage chooses its best checkpoint."""


def start_training(
    sources: Sources,
    folder: Path,
    world: World,
    *,
    resume: bool = False,
    kernels: Kernels = "eager",
    changes: Mapping[str, object] | None = None,
) -> Trainer:
    """Load the data and make a trainer, new or resumed from the folder's state file.

    Args:
        sources: Input files.
        folder: Folder of the run.
        world: The ranks that train together.
        resume: Continue from the state file in the folder, with its configuration except for
            ``changes``.
        kernels: How kernels are compiled and launched; see `agsr.training.step.kernels`.
        changes: Fields of `TrainConfig`, or of the network's configuration, to set.

    Raises:
        TrainingError: The configuration is invalid, the folder already holds a run or weights or
            can't be written, or the run to resume used other images or features.
        DatasetError: An image source is missing or empty.
        CheckpointError: The state to resume or the initial weights are missing, damaged or of
            another network.
    """
    _check_sources(sources)
    if world.is_main:
        _check_folder(folder, resume)
    init = (
        None if resume or sources.init is None else load_checkpoint(find_checkpoint(sources.init))
    )
    resumed = read_state(folder)[0].config if resume else None
    try:
        config = _configure(resumed, init, sources, world, dict(changes or {}))
    except ValueError as error:
        raise ConfigurationError(f"invalid configuration: {error}") from None
    schedule = Schedule.parse(config.schedule)
    check_schedule(schedule, NETWORKS[config.model], world)
    smallest = smallest_side(config.degradation, schedule.largest_crop)
    pairs = load_pairs(sources.data, min_side=smallest)
    perceptual = config.stage == "gan"
    trainer = Trainer(
        config,
        pairs,
        _validation(sources, config),
        folder,
        world=world,
        init=init,
        features=Lpips("vgg16", sources.features) if perceptual and sources.features else None,
        lpips=Lpips("alexnet", sources.lpips) if perceptual and sources.lpips else None,
        kernels=kernels,
    )
    if resume:
        trainer.restore()
    return trainer


def _check_sources(sources: Sources) -> None:
    """Check before images are read that all given paths exist.

    Raises:
        UnknownSetError: A source of images is missing.
        UnknownWeightsError: A file of features is missing.
    """
    for source in (*sources.data, *sources.validation):
        if not source.exists():
            raise UnknownSetError(missing_source(source))
    for path in filter(None, (sources.features, sources.lpips)):
        require_file(path)


def _check_folder(folder: Path, resume: bool) -> None:
    """Check before long work that a run's files can be written and replace no other run's.

    Raises:
        TrainingError: They can't be written, or would replace another run's.
        CheckpointError: There is no state to resume.
    """
    has_state = (folder / STATE_FILE).exists()
    if has_state and not resume:
        raise TrainingError(
            f"{folder} already holds a run; continue it with --resume, or choose another -o"
        )
    weights = [name for name in (LAST_FILE, BEST_FILE) if (folder / name).exists()]
    if resume and not has_state:
        found = f"only {' and '.join(weights)}" if weights else "no run"
        raise CheckpointError(
            f"{folder / STATE_FILE}: no such file; found {found} in {folder}, expected a training "
            "state; start a new run with another -o and no --resume"
            + (f"; --init {folder / weights[-1]} starts from its weights" if weights else "")
        )
    if weights and not resume:
        raise TrainingError(
            f"{folder} holds {' and '.join(weights)} of a run without its state, which would be "
            "overwritten; choose another -o"
        )
    for name in (STATE_FILE, LAST_FILE, BEST_FILE):
        _check_writable(folder / name)


def _check_writable(path: Path) -> None:
    try:
        check_writable(path)
    except OSError as error:
        raise TrainingError(f"{path}: can't be written: {error.strerror}") from None


def _validation(sources: Sources, config: TrainConfig) -> list[Pair]:
    if not sources.validation:
        return []
    pairs = load_pairs(sources.validation, min_side=4 * SCALE)
    return pairs if config.degradation == "bicubic" else degrade_pairs(pairs)


def _configure(
    resumed: TrainConfig | None,
    init: Checkpoint | None,
    sources: Sources,
    world: World,
    changes: dict[str, object],
) -> TrainConfig:
    """Return the configuration of a new or a resumed run."""
    if resumed is not None:
        fixed = [
            name
            for name in ("model", "stage", "degradation")
            if changes.get(name, getattr(resumed, name)) != getattr(resumed, name)
        ]
        if fixed:
            raise ValueError(
                f"the {fixed[0]} of a run can't change; this one uses {getattr(resumed, fixed[0])}"
            )
        config = resumed.changed(changes)
        if config.perceptual_weight and not sources.features:
            raise ValueError("this run uses a perceptual loss; give vgg16.npz with --features")
        return config
    if init is not None:
        if changes.setdefault("model", init.model) != init.model:
            raise ValueError(f"the weights of --init belong to the model {init.model}")
        changes = {**vars(init.config), **changes}
    model, stage = changes.get("model", DEFAULT_NETWORK), changes.get("stage", "psnr")
    if model in NETWORKS and stage in get_args(Stage) and (model, stage) not in STAGE_DEFAULTS:
        raise ValueError(f"{model} has no stage '{stage}'")
    defaults = STAGE_DEFAULTS.get((model, stage), {})  # type: ignore[arg-type]  # changed() checks
    config = TrainConfig().changed(
        {"model": model, "bf16": has_fast_bf16(world.device), **defaults, **changes}
    )
    if stage == "gan" and init is None:
        raise ValueError("the stage 'gan' starts from trained weights; give them with --init")
    if init is not None:
        if config.network != init.config:
            raise ValueError("the weights of --init have another shape")
        config = config.changed({"init": init.weights_hash})
    if config.perceptual_weight and not sources.features:
        config = config.changed({"perceptual_weight": 0.0})
    return config
