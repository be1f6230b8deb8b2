"""The training loop, for every network and stage, on one device or many.

Data flow: `agsr.training.step.iteration`, at the pace of `agsr.training.pace` → averaged weights →
`agsr.training.evaluation` → `agsr.model.checkpoint`. A run lives in a folder: ``state.safetensors``
(everything to go on exactly), ``last.safetensors`` and ``best.safetensors`` (averaged weights,
ready to export). `agsr.training.launch` starts it; `agsr.cli.output.tables` draws the progress that
`Trainer.run` yields.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from agsr.datasets.pairs import Pair, fingerprint
from agsr.errors import CheckpointError, ConfigurationError, TrainingError
from agsr.metrics.lpips import Lpips
from agsr.model.base import Network, place
from agsr.model.checkpoint import Checkpoint, save_checkpoint, to_float32
from agsr.model.registry import build
from agsr.training.config import TrainConfig
from agsr.training.distributed import World
from agsr.training.evaluation import score
from agsr.training.objectives import make_objective
from agsr.training.pace import Pace
from agsr.training.patch_sampler import make_bank
from agsr.training.schedule import Phase, Schedule
from agsr.training.state import BEST_FILE, LAST_FILE, Progress, RunState, read_state, write_state
from agsr.training.state_tensors import all_finite, fill
from agsr.training.step.iteration import Iteration
from agsr.training.step.kernels import Kernels, Launcher
from agsr.training.step.optimized_module import AfterSteps, Learner, autocast
from agsr.training.throughput import Clock, Meter

SAVE_SECONDS = 20.0
"""Seconds between saves of the state: the most that a kill can lose."""


class Trainer:
    """One training run.

    Args:
        config: What to do.
        pairs: Training images (`agsr.datasets.pairs.load_pairs`).
        validation: Images that choose the best checkpoint; none means the last is the best.
        folder: Where the run's files go.
        world: The ranks that train together; None means this process alone, on the CPU.
        init: Weights to begin with; None means random ones.
        features: VGG16 features of the perceptual loss; None leaves that loss out.
        lpips: LPIPS on AlexNet, by which the ``gan`` stage chooses its best checkpoint; None means
            that its last is its best.
        kernels: How an iteration's kernels are made and launched; see `agsr.training.step.kernels`.

    Raises:
        ConfigurationError: The configuration makes no sense for this network.
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
        self.state = RunState(config, fingerprint(pairs))
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
        self._learner = Learner(network, self.world, clip_norm=config.clip_norm, muon=muon)
        if self.world.device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # sizes repeat all the time
        # Phases differ in sizes, and the first step in its inputs, which need no gradient.
        torch._dynamo.config.recompile_limit = 8 * len(self.schedule.phases)
        launcher = Launcher(kernels, network, self.world.device, ranks=self.world.size)
        self._iteration = Iteration(
            config,
            self.world,
            bank=make_bank(config.degradation, pairs, config.seed, self.world),
            forward=self.world.parallel(AfterSteps(network)),
            learner=self._learner,
            objective=self._objective,
            launcher=launcher,
        )
        self._average = self._iteration.average
        self._stop = False

    def stop(self) -> None:
        """Ask `run` to save and end after the current iteration; safe in a signal handler."""
        self._stop = True

    def run(
        self,
        *,
        minutes: float | None = None,
        budget_seconds: float | None = None,
        report_every: int = 50,
        save_every: float = SAVE_SECONDS,
    ) -> Iterator[Progress]:
        """Train until the schedule ends, the time is up or `stop` is called.

        Args:
            minutes: Length of this slice; None means to the end.
            budget_seconds: Seconds from now to the end of a run with a budget of time, saving
                included; None means what its progress leaves of the budget.
            report_every: Iterations between progress reports.
            save_every: Seconds between saves of the state: the most a kill can lose.
        """
        clock, pace = Clock(minutes, save_every), Pace(self.state, self.world)
        self._begin(pace, budget_seconds)
        meter = Meter(self.world, self.config.bf16)
        if pace.has_time:
            pace.update()
        while pace.has_time and not pace.finished:
            phase, rate = pace.phase, pace.rate
            meter.time(phase, partial(self._iteration.run, self.state.iteration, phase, rate))
            self.state.iteration += 1
            self.state.patches += phase.batch
            pace.update()
            validates = pace.wants_validation()
            ends = pace.finished
            if validates or ends or self.state.iteration % report_every == 0:
                yield self._report(meter, pace, phase, rate, validates or ends)
            if pace.meets and self.world.agree(self._stop or clock.over()):
                break
            if self.world.leads and clock.save_is_due():
                self.save()
        self.save()

    def _begin(self, pace: Pace, budget_seconds: float | None) -> None:
        """Save at once; with a budget, learn by a first validation how long the last one takes."""
        began = time.monotonic()
        if not self.state.iteration:
            self.save()
        if not pace.timed or pace.finished:
            return
        if self._validation and self.world.leads:
            self._validate(pace.phase.steps)
        took = self.world.agree_on(time.monotonic() - began)
        left = 60 * self.config.budget * (1 - self.state.progress)
        whole = left if budget_seconds is None else budget_seconds
        pace.start(whole - took - min(1.2 * took, whole / 2))

    def save(self) -> None:
        """Write the state file and the averaged weights; on rank 0 only.

        Raises:
            TrainingError: A value isn't finite; the files of the last save stay.
        """
        if not self.world.leads:
            return
        tensors = self._learner.state("") | self._objective.state()
        tensors |= {f"average.{name}": value for name, value in self._average.items()}
        if not all_finite(tensors.values()):
            raise self._diverged()
        write_state(self.state, tensors, self.folder)
        save_checkpoint(self.checkpoint(), self.folder / LAST_FILE)
        if not self._validation:
            save_checkpoint(self.checkpoint(), self.folder / BEST_FILE)

    def restore(self) -> None:
        """Go on from the folder's state file, written by any number of ranks.

        Raises:
            CheckpointError: There is none, or it is damaged.
            TrainingError: It belongs to other training images.
        """
        state, tensors = read_state(self.folder)
        if state.data != self.state.data:
            raise TrainingError(
                f"{self.folder} was trained on other images, or on the same ones chosen by another "
                "largest crop; give the same --data, or start anew with another -o"
            )
        state.config = self.config
        self.state = state
        self._learner.load(tensors, "", state.iteration)
        try:
            self._objective.load(tensors, state.iteration)
            fill(self._average, tensors, "average.")
        except CheckpointError as error:
            raise CheckpointError(
                f"{self.folder}: the training state is incomplete: {error}; start a new run with "
                "another -o, with --init and the weights beside it"
            ) from None

    def checkpoint(self) -> Checkpoint:
        """The averaged weights with their network, record and scores."""
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
        self, meter: Meter, pace: Pace, phase: Phase, rate: float, validates: bool
    ) -> Progress:
        terms, count = self._iteration.read_terms()
        seconds, share = meter.read()
        if not math.isfinite(terms["l1"]):  # the mean over all ranks: they end together
            raise self._diverged()
        if validates and self._validation and self.world.leads:
            self._validate(phase.steps)
            pace.validated()
        meter.start()
        return Progress(
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
        """Score the averaged weights on whole images; keep them if they are the best so far."""
        network = place(self.checkpoint().build(), self.world.device)
        lpips = self._lpips if self.config.stage == "gan" else None
        with autocast(self.world.device, self.config.bf16):
            self.state.scores = score(network, self._validation, steps, lpips)
        row = {
            "iteration": self.state.iteration,
            "patches": self.state.patches,
            "steps": steps,
            **self.state.scores,
        }
        before = self.state.history[-1] if self.state.history else {}
        # Another step count, or LPIPS from now on or no more: scores that can't be compared.
        new_phase = before.get("steps") != steps or before.keys() != row.keys()
        self.state.history.append(row)
        merit = self._merit(row)
        if new_phase or self.state.best is None or merit > self.state.best:
            self.state.best = merit
            self.save()  # so that a resumed run never judges by an older best
            save_checkpoint(self.checkpoint(), self.folder / BEST_FILE)

    def _diverged(self) -> TrainingError:
        return TrainingError(
            f"the weights are not finite at iteration {self.state.iteration}, the last good "
            "state is kept; go on from it with a lower learning rate: --resume --rate"
        )

    def _merit(self, row: Mapping[str, Any]) -> float:
        """What the best checkpoint is best at: PSNR, or in the ``gan`` stage LPIPS, else age."""
        if self.config.stage == "psnr":
            return float(row["psnr_y"][str(row["steps"])])
        return -float(row["lpips"]) if "lpips" in row else float(row["iteration"])


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw random weights from a seed; the caller's own random numbers stay as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def check_schedule(schedule: Schedule, network: type[Network], world: World) -> None:
    """Reject a schedule that a network or a number of ranks can't follow.

    Raises:
        ConfigurationError: The network has fewer steps, or a batch can't be shared.
    """
    try:
        for phase in schedule.phases:
            network.check_steps(phase.steps)
    except ValueError as error:
        raise ConfigurationError(f"the schedule does not fit the model: {error}") from None
    for phase in schedule.phases:
        if phase.batch % world.size:
            raise ConfigurationError(
                f"{phase.batch} patches can't be shared by {world.size} ranks (phase {phase}); "
                "choose batches in --schedule that can"
            )
