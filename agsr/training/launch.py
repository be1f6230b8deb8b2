"""Starting or resuming a training run: data, configuration and trainer put together."""

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
    UnknownWeightsError,
)
from agsr.metrics.lpips import Lpips
from agsr.model.checkpoint import Checkpoint, load_checkpoint
from agsr.model.registry import DEFAULT_NETWORK, NETWORKS
from agsr.pretrained import find_checkpoint, missing_file
from agsr.system.atomic_file import check_writable
from agsr.training.config import STAGE_DEFAULTS, Stage, TrainConfig
from agsr.training.distributed import World
from agsr.training.patch_sampler import smallest_side
from agsr.training.schedule import Schedule
from agsr.training.state import BEST_FILE, LAST_FILE, STATE_FILE, read_state
from agsr.training.step.kernels import Kernels
from agsr.training.throughput import has_fast_bf16
from agsr.training.trainer import Trainer, check_schedule


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The files a run reads."""

    data: Sequence[Path]
    """Tar files and folders of training images."""
    validation: Sequence[Path] = ()
    """Tar files and folders of images that choose the best checkpoint."""
    init: str | None = None
    """Weights to begin with: a shipped name or a file; None means random ones."""
    features: Path | None = None
    """``vgg16.npz``: the features of the perceptual loss."""
    lpips: Path | None = None
    """``alexnet.npz``: the metric by which the ``gan`` stage chooses."""


def start_training(
    sources: Sources,
    folder: Path,
    world: World,
    *,
    resume: bool = False,
    kernels: Kernels = "eager",
    changes: Mapping[str, object] | None = None,
) -> Trainer:
    """Load the data and make a trainer, fresh or as the folder's state file left it.

    Args:
        sources: The files to read.
        folder: Where the run's files go.
        world: The ranks that train together.
        resume: Go on from the state file in the folder; its configuration holds where ``changes``
            says nothing.
        kernels: How an iteration's kernels are made and launched; see `agsr.training.step.kernels`.
        changes: Fields of `TrainConfig`, or of the network's configuration, to set.

    Raises:
        TrainingError: The configuration makes no sense, the folder already holds a run or weights
            or can't be written, or the run to go on with had other images or other features.
        DatasetError: An image source is missing or empty.
        CheckpointError: The state to go on from or the weights to begin with are missing, damaged
            or of another network.
    """
    _check_sources(sources)
    if world.leads:
        _check_folder(folder, resume)
    init = (
        None if resume or sources.init is None else load_checkpoint(find_checkpoint(sources.init))
    )
    begun = read_state(folder)[0].config if resume else None
    try:
        config = _configure(begun, init, sources, world, dict(changes or {}))
    except ValueError as error:
        raise ConfigurationError(f"the configuration makes no sense: {error}") from None
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
    """Find out before images are read whether all that was named is there.

    Raises:
        UnknownSetError: A source of images isn't.
        UnknownWeightsError: A file of features isn't.
    """
    for source in (*sources.data, *sources.validation):
        if not source.exists():
            raise UnknownSetError(missing_source(source))
    for path in filter(None, (sources.features, sources.lpips)):
        if not path.is_file():
            raise UnknownWeightsError(missing_file(path))


def _check_folder(folder: Path, resume: bool) -> None:
    """Find out before long work whether a run's files can be written and replace no others.

    Raises:
        TrainingError: They can't, or would.
        CheckpointError: There is no state to resume from.
    """
    has_state = (folder / STATE_FILE).exists()
    if has_state and not resume:
        raise TrainingError(f"{folder} holds a run: go on with --resume, or choose another -o")
    weights = [name for name in (LAST_FILE, BEST_FILE) if (folder / name).exists()]
    if resume and not has_state:
        found = f"only {' and '.join(weights)}" if weights else "no run"
        raise CheckpointError(
            f"{folder / STATE_FILE}: no such file; found {found} in {folder}, expected a training "
            "state; start a run without --resume and with another -o"
            + (f", --init {folder / weights[-1]} to begin with its weights" if weights else "")
        )
    if weights and not resume:
        raise TrainingError(
            f"{folder} holds {' and '.join(weights)} of a run without its state, which would be "
            "replaced; choose another -o"
        )
    for name in (STATE_FILE, LAST_FILE, BEST_FILE):
        _check_place(folder / name)


def _check_place(path: Path) -> None:
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
    begun: TrainConfig | None,
    init: Checkpoint | None,
    sources: Sources,
    world: World,
    changes: dict[str, object],
) -> TrainConfig:
    """The configuration of a fresh run, or of one to go on with."""
    if begun is not None:
        fixed = [
            name
            for name in ("model", "stage", "degradation")
            if changes.get(name, getattr(begun, name)) != getattr(begun, name)
        ]
        if fixed:
            raise ValueError(f"a run keeps its {fixed[0]}: {getattr(begun, fixed[0])}")
        config = begun.changed(changes)
        if config.perceptual_weight and not sources.features:
            raise ValueError("this run has a perceptual loss: name vgg16.npz with --features")
        return config
    if init is not None:
        if changes.setdefault("model", init.model) != init.model:
            raise ValueError(f"the weights to begin with are of the model {init.model}")
        changes = {**vars(init.config), **changes}
    model, stage = changes.get("model", DEFAULT_NETWORK), changes.get("stage", "psnr")
    if model in NETWORKS and stage in get_args(Stage) and (model, stage) not in STAGE_DEFAULTS:
        raise ValueError(f"{model} has no stage '{stage}'")
    defaults = STAGE_DEFAULTS.get((model, stage), {})  # type: ignore[arg-type]  # changed() checks
    config = TrainConfig().changed(
        {"model": model, "bf16": has_fast_bf16(world.device), **defaults, **changes}
    )
    if stage == "gan" and init is None:
        raise ValueError("the stage 'gan' begins with trained weights: name them with --init")
    if init is not None:
        if config.network != init.config:
            raise ValueError("the weights to begin with have another shape")
        config = config.changed({"init": init.weights_hash})
    if config.perceptual_weight and not sources.features:
        config = config.changed({"perceptual_weight": 0.0})
    return config
