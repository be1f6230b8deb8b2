"""The PSNR stage of training: L1 on every step's output, progressively unrolled.

Data flow: `agsr.data` (patches) → generator → `agsr.losses` → Adam → EMA weights → validation →
`agsr.checkpoint`. A run lives in a folder: ``state.safetensors`` (everything to go on exactly),
``last.safetensors`` and ``best.safetensors`` (EMA weights, ready to export). `agsr.cli` draws the
progress that `Trainer.run` yields.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agsr.checkpoint import Checkpoint, read_tensors, save_checkpoint, to_float32, write_tensors
from agsr.data import Image8, Pair, PatchSampler, fingerprint
from agsr.errors import CheckpointError, TrainingError
from agsr.generator import Generator, place
from agsr.losses import stepwise_l1
from agsr.schedule import Schedule, learning_rate
from agsr.train_config import TrainConfig
from agsr.validation import psnr_by_step, to_tensor

STATE_FILE = "state.safetensors"
"""Name of the state file in a run's folder."""

STATE_FORMAT = "agsr-training-state-1"
"""Value of the ``format`` entry in a state file's header."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands; one is yielded every few iterations and after every validation."""

    iteration: int
    """Iterations done."""
    iterations: int
    """Iterations of the whole run."""
    loss: float
    """Mean L1 loss since the report before, in 8-bit levels."""
    rate: float
    """Learning rate of the last iteration."""
    steps: int
    """Unrolled steps of the current phase."""
    speed: float
    """Iterations per second since the report before."""
    seconds_left: float
    """Estimated time to the end of the run, by the cost still to do."""
    validation: dict[int, float]
    """PSNR-Y in dB on the validation images by step count, from the latest validation."""
    best: float
    """Best validation PSNR-Y at the phase's step count so far, dB."""


class Trainer:
    """One training run.

    Args:
        config: What to do.
        pairs: Training images (`agsr.data.load_pairs`).
        validation: Images that choose the best checkpoint; none means the last is the best.
        folder: Where the run's files go.
        device: Where to compute, for example ``"cpu"`` or ``"cuda"``.
    """

    def __init__(
        self,
        config: TrainConfig,
        pairs: Sequence[Pair],
        validation: Sequence[Pair],
        folder: Path,
        device: str = "cpu",
    ) -> None:
        self.config = config
        self.schedule = Schedule.parse(config.schedule)
        self.folder = folder
        self.iteration = 0
        self.scores: dict[int, float] = {}
        self.best = -float("inf")
        self.history: list[list[float]] = []
        self._device = torch.device(device)
        self._sampler = PatchSampler(pairs, config.seed)
        self._images = len(pairs)
        self._data = fingerprint(pairs)
        self._validation = validation
        torch.manual_seed(config.seed)
        self.generator = place(Generator(config.generator), self._device)
        self._parameters = dict(self.generator.named_parameters())
        self._average = to_float32(self._parameters)
        self._average = {name: value.to(self._device) for name, value in self._average.items()}
        self._adam = torch.optim.Adam(self._parameters.values(), config.peak_rate, fused=True)
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
        started = saved = reported = time.monotonic()
        losses: list[Tensor] = []
        with ThreadPoolExecutor(1) as pool:
            upcoming = self._prepare(pool)
            while self.iteration < self.schedule.iterations and not self._stop:
                batch, rate = upcoming.result(), self._rate()
                self.iteration += 1
                upcoming = self._prepare(pool)
                losses.append(self._train_on(*batch, rate))
                finished = self.iteration == self.schedule.iterations
                due = finished or self.iteration % self.config.validate_every == 0
                if due:
                    self._validate()
                if due or self.iteration % report_every == 0:
                    now = time.monotonic()
                    yield self._progress(losses, rate, len(losses) / (now - reported))
                    losses, reported = [], time.monotonic()
                if time.monotonic() - saved > save_every:
                    self.save()
                    saved = time.monotonic()
                if minutes is not None and time.monotonic() - started > 60 * minutes:
                    break
            upcoming.cancel()
        self.save()

    def save(self) -> None:
        """Write the state file and the averaged weights.

        Raises:
            TrainingError: The weights aren't finite; the files of the last save stay.
        """
        if not all(torch.isfinite(tensor).all() for tensor in self._average.values()):
            raise TrainingError(
                f"the weights are not finite at iteration {self.iteration}, the last good state is "
                "kept; go on from it with a lower learning rate: --resume --rate"
            )
        write_tensors(self._state(), self._state_header(), self.folder / STATE_FILE)
        save_checkpoint(self.checkpoint(), self.folder / "last.safetensors")
        if not self._validation:
            save_checkpoint(self.checkpoint(), self.folder / "best.safetensors")

    def restore(self) -> None:
        """Go on from the folder's state file.

        Raises:
            CheckpointError: There is none, or it is damaged.
            TrainingError: It belongs to other training images.
        """
        tensors, header = _read_state(self.folder)
        if header["data"] != self._data:
            raise TrainingError(
                f"{self.folder} was trained on other images, or on the same ones chosen by another "
                "largest crop; give the same --data, or start anew with another -o"
            )
        self.iteration = int(header["iteration"])
        self.best = float(header["best"])
        self.scores = {int(steps): score for steps, score in json.loads(header["scores"]).items()}
        self.history = json.loads(header["history"])
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(tensors[f"model.{name}"])
                self._average[name].copy_(tensors[f"average.{name}"])
                self._adam.state[parameter] = {
                    "step": torch.tensor(float(self.iteration), device=self._device),
                    "exp_avg": torch.empty_like(parameter).copy_(tensors[f"mean.{name}"]),
                    "exp_avg_sq": torch.empty_like(parameter).copy_(tensors[f"square.{name}"]),
                }

    def checkpoint(self) -> Checkpoint:
        """The averaged weights with config, record and scores."""
        record = {
            **dataclasses.asdict(self.config),
            "iteration": self.iteration,
            "images": self._images,
            "torch": torch.__version__,
            "history": self.history,
        }
        return Checkpoint(
            config=self.config.generator,
            weights=to_float32(self._average),
            record=record,
            scores={"psnr_y": {str(steps): psnr for steps, psnr in self.scores.items()}},
        )

    def _prepare(self, pool: ThreadPoolExecutor) -> Future[tuple[Image8, Image8]]:
        """Start to cut the batch of the current iteration while the one before is trained on."""
        phase = self.schedule.phase(self.iteration)
        return pool.submit(self._sampler.batch, self.iteration, phase.batch, phase.crop)

    def _rate(self) -> float:
        return learning_rate(
            self.schedule.progress(self.iteration),
            self.iteration,
            peak=self.config.peak_rate,
            final=self.config.final_rate,
            warmup=self.config.warmup,
        )

    def _train_on(self, lr_images: Image8, hr_images: Image8, rate: float) -> Tensor:
        """One optimizer step; returns the loss without waiting for the device."""
        steps = self.schedule.phase(self.iteration - 1).steps
        lr, hr = to_tensor(lr_images, self._device), to_tensor(hr_images, self._device)
        with self._autocast():
            outputs = self.generator.every_step(lr, steps)
        loss = stepwise_l1(outputs, hr)
        self._adam.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._parameters.values(), self.config.clip_norm)
        self._adam.param_groups[0]["lr"] = rate
        self._adam.step()
        self._update_average()
        return loss.detach()

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.ema_decay, (1 + self.iteration) / (10 + self.iteration))
        averages = [self._average[name] for name in self._parameters]
        torch._foreach_lerp_(averages, list(self._parameters.values()), 1 - decay)

    def _validate(self) -> None:
        """Score the averaged weights on whole images; keep them if they are the best so far."""
        if not self._validation:
            return
        steps = self.schedule.phase(self.iteration - 1).steps
        generator = place(self.checkpoint().build(), self._device)
        with self._autocast():
            means = psnr_by_step(generator, self._validation, steps)
        self.scores = {step: round(psnr, 4) for step, psnr in enumerate(means, 1)}
        new_phase = not self.history or self.history[-1][1] != steps
        self.history.append([self.iteration, steps, *self.scores.values()])
        if new_phase or self.scores[steps] > self.best:
            self.best = self.scores[steps]
            save_checkpoint(self.checkpoint(), self.folder / "best.safetensors")
            self.save()  # so that a resumed run never judges by an older best

    def _progress(self, losses: Sequence[Tensor], rate: float, speed: float) -> Progress:
        loss = float(torch.stack(list(losses)).mean()) * 255
        phase = self.schedule.phase(self.iteration - 1)
        cost_left = (1 - self.schedule.progress(self.iteration)) * sum(
            p.cost * p.iterations for p in self.schedule.phases
        )
        return Progress(
            iteration=self.iteration,
            iterations=self.schedule.iterations,
            loss=loss,
            rate=rate,
            steps=phase.steps,
            speed=speed,
            seconds_left=cost_left / phase.cost / speed,
            validation=self.scores,
            best=self.best,
        )

    def _state(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for name, parameter in self._parameters.items():
            adam = self._adam.state[parameter]
            tensors[f"model.{name}"] = parameter
            tensors[f"average.{name}"] = self._average[name]
            tensors[f"mean.{name}"] = adam.get("exp_avg", torch.zeros_like(parameter))
            tensors[f"square.{name}"] = adam.get("exp_avg_sq", torch.zeros_like(parameter))
        return tensors

    def _state_header(self) -> dict[str, str]:
        return {
            "format": STATE_FORMAT,
            "config": self.config.to_json(),
            "data": self._data,
            "iteration": str(self.iteration),
            "best": repr(self.best),
            "scores": json.dumps(self.scores),
            "history": json.dumps(self.history),
        }

    def _autocast(self) -> Any:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self.config.bf16)


def saved_config(folder: Path) -> TrainConfig:
    """The configuration of the run that a folder's state file belongs to.

    Raises:
        CheckpointError: There is no state file, or it is damaged.
    """
    text = _read_state(folder)[1].get("config", "")
    try:
        return TrainConfig.from_json(text)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / STATE_FILE}: of another version: {error}") from None


def check_device(device: str) -> None:
    """Find out whether torch can compute on a device.

    Raises:
        TrainingError: It can't.
    """
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise TrainingError(f"torch can't use the device '{device}': {reason}") from None


def _read_state(folder: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    path = folder / STATE_FILE
    tensors, header = read_tensors(path)
    if header.get("format") != STATE_FORMAT:
        raise CheckpointError(
            f"{path}: found format {header.get('format')!r}, expected {STATE_FORMAT!r}"
        )
    return tensors, header
