"""The training loop, for every network and stage, on one device or many.

Data flow: `agsr.training.step.iteration`, scheduled by `agsr.training.pace` → averaged weights →
`agsr.training.evaluation` → `agsr.model.checkpoint`. The folder of a run contains
``state.safetensors`` (for exact resumption), ``last.safetensors`` and ``best.safetensors``
(averaged weights, ready to export). `agsr.training.launch` starts a run;
`agsr.cli.output.training` shows the progress that `Trainer.run` yields.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from agsr.datasets.pairs import Pair, fingerprint
from agsr.errors import CheckpointError, TrainingError
from agsr.metrics.lpips import Lpips
from agsr.model.base import place
from agsr.model.checkpoint import Checkpoint, save_checkpoint, to_float32
from agsr.model.registry import build
from agsr.training.config import TrainConfig
from agsr.training.distributed import World
from agsr.training.evaluation import record_scores, score
from agsr.training.objectives import make_objective
from agsr.training.pace import Pace
from agsr.training.patch_sampler import make_bank
from agsr.training.schedule import Phase, Schedule, check_schedule
from agsr.training.state import (
    BEST_FILE,
    LAST_FILE,
    TrainingProgress,
    TrainingState,
    read_state,
    write_state,
)
from agsr.training.state_tensors import all_finite, fill
from agsr.training.step.iteration import Iteration
from agsr.training.step.kernels import Kernels, Launcher
from agsr.training.step.optimized_module import AfterSteps, OptimizedModule, autocast
from agsr.training.throughput import SliceTimer, ThroughputMeter

SAVE_SECONDS = 20.0
"""Seconds between saves of the state: the most work that a kill can lose."""


class Trainer:
    """One training run.

    Args:
        config: Configuration.
        pairs: Training images (`agsr.datasets.pairs.load_pairs`).
        validation: Images for choosing the best checkpoint; without any, the last is the best.
        folder: Folder for the run's files.
        world: The ranks that train together; None means this process alone, on the CPU.
        init: Initial weights; None means random weights.
        features: VGG16 features of the perceptual loss; None skips that loss.
        lpips: LPIPS on AlexNet, by which the ``gan`` stage chooses its best checkpoint; None makes
            the last one the best.
        kernels: How kernels are compiled and launched; see `agsr.training.step.kernels`.

    Raises:
        ConfigurationError: The configuration doesn't fit this network.
    """

    def __init__(
        self,
        config: TrainConfig,
        pairs: Sequence[Pair],
        validation: Sequence[Pair],
        folder: Path,
        *,
        world: World | None = None,
        init: Checkpoint | None = None,
        features: Lpips | None = None,
        lpips: Lpips | None = None,
        kernels: Kernels = "eager",
    ) -> None:
        self.config = config
        self.schedule = Schedule.parse(config.schedule)
        self.folder = folder
        self.world = world or World(torch.device("cpu"))
        self.state = TrainingState(config, fingerprint(pairs))
        self._images = len(pairs)
        self._validation = validation
        self._lpips = place(lpips, self.world.device) if lpips else None
        with _seeded(config.seed):
            network = build(config.model, config.network)
            self._objective = make_objective(config, self.world, features)
        check_schedule(self.schedule, type(network), self.world)
        if init is not None:
            network.load_state_dict(init.build().state_dict())
        self.network = network
        muon = config.optimizer == "muon"
        self._optimized = OptimizedModule(
            network, self.world, clip_norm=config.clip_norm, muon=muon
        )
        if self.world.device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # input sizes repeat
        # One compilation per input size, and one for the first step, whose inputs need no gradient.
        torch._dynamo.config.recompile_limit = 8 * len(self.schedule.phases)
        launcher = Launcher(kernels, network, self.world.device, ranks=self.world.size)
        self._iteration = Iteration(
            config,
            self.world,
            bank=make_bank(config.degradation, pairs, config.seed, self.world),
            forward=self.world.parallel(AfterSteps(network)),
            optimized=self._optimized,
            objective=self._objective,
            launcher=launcher,
        )
        self._average = self._iteration.average
        self._stop = False

    def stop(self) -> None:
        """Make `run` save and end after the current iteration; safe in a signal handler."""
        self._stop = True

    def run(
        self,
        *,
        minutes: float | None = None,
        budget_seconds: float | None = None,
        report_every: int = 50,
        save_every: float = SAVE_SECONDS,
    ) -> Iterator[TrainingProgress]:
        """Train until the schedule ends, the time is up or `stop` is called.

        Args:
            minutes: Length of this slice; None means unlimited.
            budget_seconds: Seconds from now to the end of a run with a time budget, including the
                last save; None means the rest of the budget by progress.
            report_every: Iterations between progress reports.
            save_every: Seconds between saves of the state.
        """
        clock, pace = SliceTimer(minutes, save_every), Pace(self.state, self.world)
        self._begin(pace, budget_seconds)
        meter = ThroughputMeter(self.world, self.config.bf16)
        if pace.has_time:
            pace.update()
        while pace.has_time and not pace.finished:
            phase, rate = pace.phase, pace.rate
            meter.time(phase, partial(self._iteration.run, self.state.iteration, phase, rate))
            self.state.iteration += 1
            self.state.patches += phase.batch
            pace.update()
            validates = pace.validation_is_due()
            ends = pace.finished
            if validates or ends or self.state.iteration % report_every == 0:
                yield self._report(meter, pace, phase, rate, validates or ends)
            if pace.syncs and self.world.agree(self._stop or clock.over()):
                break
            if self.world.is_main and clock.save_is_due():
                self.save()
        self.save()

    def _begin(self, pace: Pace, budget_seconds: float | None) -> None:
        """Save; with a time budget, validate once to reserve the time of the last validation."""
        began = time.monotonic()
        if not self.state.iteration:
            self.save()
        if not pace.timed or pace.finished:
            return
        if self._validation and self.world.is_main:
            self._validate(pace.phase.steps)
        took = self.world.agree_on(time.monotonic() - began)
        left = 60 * self.config.budget * (1 - self.state.progress)
        whole = left if budget_seconds is None else budget_seconds
        pace.start(whole - took - min(1.2 * took, whole / 2))

    def save(self) -> None:
        """Write the state file and the averaged weights, on rank 0 only.

        Raises:
            TrainingError: A value isn't finite; the files of the previous save remain.
        """
        if not self.world.is_main:
            return
        tensors = self._optimized.state("") | self._objective.state()
        tensors |= {f"average.{name}": value for name, value in self._average.items()}
        if not all_finite(tensors.values()):
            raise self._diverged()
        write_state(self.state, tensors, self.folder)
        checkpoint = self.checkpoint()
        save_checkpoint(checkpoint, self.folder / LAST_FILE)
        if not self._validation:
            save_checkpoint(checkpoint, self.folder / BEST_FILE)

    def restore(self) -> None:
        """Restore the folder's state file, written by any number of ranks.

        Raises:
            CheckpointError: The file is missing or damaged.
            TrainingError: The run used other training images.
        """
        state, tensors = read_state(self.folder)
        if state.data != self.state.data:
            raise TrainingError(
                f"{self.folder} was trained on other images, or its largest crop selects others; "
                "give the same --data and crop, or start a new run with another -o"
            )
        state.config = self.config
        self.state = state
        self._optimized.load(tensors, "", state.iteration)
        try:
            self._objective.load(tensors, state.iteration)
            fill(self._average, tensors, "average.")
        except CheckpointError as error:
            raise CheckpointError(
                f"{self.folder}: the training state is incomplete: {error}; start a new run with "
                "another -o, and --init with the weights in this folder"
            ) from None

    def checkpoint(self) -> Checkpoint:
        """Return the averaged weights with their network, record and scores."""
        record = {
            **self.config.to_record(),
            "iteration": self.state.iteration,
            "patches": self.state.patches,
            "images": self._images,
            "torch": torch.__version__,
            "history": self.state.history,
        }
        return Checkpoint(
            model=self.config.model,
            config=self.config.network,
            weights=to_float32(self._average),
            record=record,
            scores=self.state.scores,
        )

    def _report(
        self, meter: ThroughputMeter, pace: Pace, phase: Phase, rate: float, validates: bool
    ) -> TrainingProgress:
        terms, count = self._iteration.read_terms()
        seconds, share = meter.read()
        if not math.isfinite(terms["l1"]):  # the mean over all ranks, so all stop together
            raise self._diverged()
        if validates and self._validation and self.world.is_main:
            self._validate(phase.steps)
            pace.note_validation()
        meter.start()
        return TrainingProgress(
            iteration=self.state.iteration,
            iterations=None if pace.timed else self.schedule.iterations,
            progress=self.state.progress,
            terms={**terms, "l1": 255 * terms["l1"]},
            rate=rate,
            steps=phase.steps,
            patches_per_second=count / seconds * phase.batch,
            matmul_share=share,
            seconds_left=pace.seconds_left(seconds / (count * phase.cost)),
            scores=self.state.scores,
        )

    def _validate(self, steps: int) -> None:
        """Score the averaged weights on whole images; save them if they are the best so far."""
        network = place(self.checkpoint().build(), self.world.device)
        lpips = self._lpips if self.config.stage == "gan" else None
        with autocast(self.world.device, self.config.bf16):
            scores = score(network, self._validation, steps, lpips)
        if record_scores(self.state, scores, steps):
            self.save()  # so that a resumed run compares with this score
            save_checkpoint(self.checkpoint(), self.folder / BEST_FILE)

    def _diverged(self) -> TrainingError:
        return TrainingError(
            f"the weights are not finite at iteration {self.state.iteration}; the last finite "
            "state is saved: continue from it at a lower learning rate with --resume --rate"
        )


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch within the block; the caller's random state is restored."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
