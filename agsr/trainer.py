"""The training loop, for every network and stage, on one device or many.

Data flow: `agsr.patches` → network → `agsr.objectives` → `agsr.learner` → averaged weights →
`agsr.validation` → `agsr.checkpoint`. A run lives in a folder: ``state.safetensors`` (everything to
go on exactly), ``last.safetensors`` and ``best.safetensors`` (averaged weights, ready to export).
`agsr.train` starts it; `agsr.console` draws the progress that `Trainer.run` yields.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from agsr.checkpoint import Checkpoint, save_checkpoint, to_float32
from agsr.data import Pair, fingerprint
from agsr.distributed import World
from agsr.errors import TrainingError
from agsr.learner import AfterSteps, Learner, autocast
from agsr.network import Network, place
from agsr.networks import build
from agsr.objectives import make_objective
from agsr.patches import make_bank
from agsr.perceptual import Lpips
from agsr.run_state import BEST_FILE, LAST_FILE, Progress, RunState, read_state, write_state
from agsr.schedule import Schedule, learning_rate, supervised_steps
from agsr.speed import Clock, Meter
from agsr.train_config import TrainConfig
from agsr.validation import score

AGREE_EVERY = 10
"""Iterations after which several ranks ask whether to stop."""


class Trainer:
    """One training run.

    Args:
        config: What to do.
        pairs: Training images (`agsr.data.load_pairs`).
        validation: Images that choose the best checkpoint; none means the last is the best.
        folder: Where the run's files go.
        world: The ranks that train together; None means this process alone, on the CPU.
        init: Weights to begin with; None means random ones.
        features: VGG16 features of the perceptual loss; None leaves that loss out.
        lpips: LPIPS on AlexNet, by which the ``gan`` stage chooses its best checkpoint; None means
            that its last is its best.
        compile_network: Whether `torch.compile` makes the network's kernels.

    Raises:
        TrainingError: The configuration makes no sense for this network.
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
        compile_network: bool = False,
    ) -> None:
        self.config = config
        self.schedule = Schedule.parse(config.schedule)
        self.folder = folder
        self.world = world or World(torch.device("cpu"))
        self.state = RunState(config, fingerprint(pairs))
        self._images = len(pairs)
        self._bank = make_bank(config.degradation, pairs, config.seed, self.world)
        self._validation = validation
        self._lpips = place(lpips, self.world.device) if lpips else None
        with _seeded(config.seed):
            network = build(config.model, config.network)
            self._objective = make_objective(config, self.world, features)
        _check_schedule(self.schedule, network, self.world)
        if init is not None:
            network.load_state_dict(dict(init.weights))
        self.network = network
        self._learner = Learner(
            network,
            self.world,
            clip_norm=config.clip_norm,
            muon=config.optimizer == "muon",
        )
        self._average = {k: v.clone().float() for k, v in self._learner.values.items()}
        module = AfterSteps(network)
        if compile_network:
            # One graph for each: phases differ in sizes, iterations in the steps they supervise.
            torch._dynamo.config.recompile_limit = 8 * len(self.schedule.phases)
            module.compile(dynamic=False)
        self._forward = self.world.parallel(module)
        self._stop = False

    def stop(self) -> None:
        """Ask `run` to save and end after the current iteration; safe in a signal handler."""
        self._stop = True

    def run(
        self, *, minutes: float | None = None, report_every: int = 50, save_every: float = 60
    ) -> Iterator[Progress]:
        """Train until the schedule ends, the time is up or `stop` is called.

        Args:
            minutes: Length of this slice; None means to the end.
            report_every: Iterations between progress reports.
            save_every: Seconds between saves of the state: the most a kill can lose.
        """
        clock = Clock(minutes, save_every)
        meter = Meter(self.world, self.config.bf16)
        while self.state.iteration < self.schedule.iterations:
            phase, rate = self.schedule.phase(self.state.iteration), self._rate()
            meter.time(phase, partial(self._train, rate))
            self.state.iteration += 1
            meter.note(self._objective.log)
            finished = self.state.iteration == self.schedule.iterations
            validates = finished or self.state.iteration % self.config.validate_every == 0
            reports = validates or self.state.iteration % report_every == 0
            if reports:
                yield self._report(meter, rate, validates)
            meets = self.world.size == 1 or self.state.iteration % AGREE_EVERY == 0
            if meets and self.world.agree(self._stop or clock.over()):
                break
            if self.world.leads and clock.save_is_due():
                self.save()
        self.save()

    def save(self) -> None:
        """Write the state file and the averaged weights; on rank 0 only.

        Raises:
            TrainingError: A value isn't finite; the files of the last save stay.
        """
        if not self.world.leads:
            return
        tensors = self._learner.state("") | self._objective.state()
        tensors |= {f"average.{name}": value for name, value in self._average.items()}
        if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
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
        self._objective.load(tensors, state.iteration)
        for name, value in self._average.items():
            value.copy_(tensors[f"average.{name}"])

    def checkpoint(self) -> Checkpoint:
        """The averaged weights with their network, record and scores."""
        record = {
            **self.config.to_record(),
            "iteration": self.state.iteration,
            "patches": self.schedule.patches(self.state.iteration),
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

    def _rate(self) -> float:
        return learning_rate(
            self.schedule.progress(self.state.iteration),
            self.state.iteration,
            peak=self.config.peak_rate,
            final=self.config.final_rate,
            warmup=self.config.warmup,
        )

    def _train(self, rate: float) -> None:
        """One iteration; nothing in it waits for the device."""
        iteration = self.state.iteration
        phase = self.schedule.phase(iteration)
        lr, hr = self._bank.batch(iteration, phase.batch, phase.crop)
        with autocast(self.world.device, self.config.bf16):
            outputs = self._forward(lr, supervised_steps(phase.steps, iteration))
        self._learner.step(self._objective.loss(outputs, hr, iteration), rate)
        self._objective.update(rate * self.config.critic_rate / self.config.peak_rate)
        self._update_average()

    @torch.no_grad()
    def _update_average(self) -> None:
        done = self.state.iteration + 1
        decay = min(self.config.ema_decay, (1 + done) / (10 + done))
        values = [self._learner.values[name] for name in self._average]
        torch._foreach_lerp_(list(self._average.values()), values, 1 - decay)

    def _report(self, meter: Meter, rate: float, validates: bool) -> Progress:
        iteration = self.state.iteration
        phase = self.schedule.phase(iteration - 1)
        terms, speed, share = meter.read()
        if not math.isfinite(terms["l1"]):  # the mean over all ranks: they end together
            raise self._diverged()
        if validates and self._validation and self.world.leads:
            self._validate(phase.steps)
        meter.start()
        return Progress(
            iteration=iteration,
            iterations=self.schedule.iterations,
            terms=terms,
            rate=rate,
            steps=phase.steps,
            patches_per_second=speed * phase.batch,
            matmul_share=share,
            seconds_left=self.schedule.cost_left(iteration) / phase.cost / speed,
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
            "patches": self.schedule.patches(self.state.iteration),
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


def _check_schedule(schedule: Schedule, network: Network, world: World) -> None:
    try:
        for phase in schedule.phases:
            network.check_steps(phase.steps)
    except ValueError as error:
        raise TrainingError(f"the schedule does not fit the model: {error}") from None
    for phase in schedule.phases:
        if phase.batch % world.size:
            raise TrainingError(
                f"{phase.batch} patches can't be shared by {world.size} ranks (phase {phase}); "
                "choose batches in --schedule that can"
            )
