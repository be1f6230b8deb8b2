"""What ``agsr train`` shows: a line per report on stderr, scalars for TensorBoard."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psutil

from agsr.cli.output.tables import stderr
from agsr.system.optional_import import install_command
from agsr.system.signals import BOTH, handled

if TYPE_CHECKING:
    from agsr.training.state import TrainingProgress
    from agsr.training.trainer import Trainer


REPORT_EVERY = {"cpu": 50, "cuda": 100}
"""Iterations between reports; each waits for the device."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Minutes from the start of this process, so that loading counts too; None means no limit."""

    minutes: float | None = None
    """When to stop, resumable."""
    budget: float | None = None
    """When a run with a budget of time has to be finished."""

    def seconds_left(self, minutes: float | None) -> float | None:
        """Seconds from now."""
        if minutes is None:
            return None
        passed: float = time.time() - psutil.Process().create_time()
        return max(0.0, 60 * minutes - passed)


def follow_training(trainer: Trainer, limits: Limits, *, tensorboard: bool = True) -> int:
    """Run a trainer, with a line per report on stderr and scalars for TensorBoard.

    Of several ranks, the first reports. Ctrl-C and SIGTERM save the state and end the run; a second
    Ctrl-C ends it at once.

    Returns:
        Exit status: 0, or that of the signal that ended the run early.
    """
    console = stderr(quiet=not trainer.world.is_main)
    if trainer.config.stage == "gan" and not trainer.config.perceptual_weight:
        console.print("no perceptual loss: its weight is 0, or vgg16.npz is not there (--features)")
    writer = _tensorboard(trainer) if tensorboard and trainer.world.is_main else None
    slice_seconds = limits.seconds_left(limits.minutes)
    progresses = trainer.run(
        minutes=None if slice_seconds is None else slice_seconds / 60,
        budget_seconds=limits.seconds_left(limits.budget),
        report_every=REPORT_EVERY.get(trainer.world.device.type, 50),
    )

    signals: list[int] = []

    def stop(number: int, _: Any) -> None:
        signals.append(number)
        trainer.stop()
        # torchrun and batch systems may send SIGTERM twice; only a second Ctrl-C is impatience.
        again = signal.default_int_handler if number == signal.SIGINT else signal.SIG_IGN
        signal.signal(number, again)

    try:
        with handled(stop, *BOTH):
            for progress in progresses:
                console.print(_training_line(progress))
                _write_scalars(writer, progress)
    finally:
        if writer is not None:
            writer.close()
    console.print(
        f"{'finished' if trainer.state.progress >= 1 else 'stopped, go on with --resume'}: "
        f"{_done(trainer.state.iteration, _iterations(trainer))}, "
        f"{_scores_line(trainer.state.scores)}, {trainer.folder}"
    )
    return 128 + signals[0] if signals and trainer.state.progress < 1 else 0


def _iterations(trainer: Trainer) -> int | None:
    return None if trainer.config.budget else trainer.schedule.iterations


def _done(iteration: int, iterations: int | None) -> str:
    return f"{iteration} of {iterations} iterations" if iterations else f"{iteration} iterations"


def _training_line(progress: TrainingProgress) -> str:
    terms = " ".join(f"{name} {value:.4g}" for name, value in progress.terms.items())
    whole = f"/{progress.iterations}" if progress.iterations else f" ({progress.progress:.0%})"
    done = f"{progress.iteration}{whole}"
    left = timedelta(seconds=round(progress.seconds_left))
    return (
        f"{done}  steps {progress.steps}  {terms}  "
        f"rate {progress.rate:.1e}  {progress.patches_per_second:.1f} patches/s "
        f"({progress.matmul_share:.0%} of matmul)  left {left}  {_scores_line(progress.scores)}"
    )


def _scores_line(scores: Mapping[str, Any]) -> str:
    if not scores:
        return "not validated yet"
    psnr = " ".join(f"{steps}:{value:.3f}" for steps, value in scores["psnr_y"].items())
    return f"PSNR-Y {psnr}" + (f"  LPIPS {scores['lpips']:.4f}" if "lpips" in scores else "")


def _tensorboard(trainer: Trainer) -> Any | None:
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError:
        stderr().print(f"no TensorBoard log; add it with: {install_command('train')}")
        return None
    # A killed run logged past its last save; those points are purged, and made again.
    folder, start = str(trainer.folder / "tensorboard"), trainer.state.iteration + 1
    return SummaryWriter(folder, purge_step=start)


def _write_scalars(writer: Any | None, progress: TrainingProgress) -> None:
    if writer is None:
        return
    for name, value in progress.terms.items():
        writer.add_scalar(f"train/{name}", value, progress.iteration)
    writer.add_scalar("train/rate", progress.rate, progress.iteration)
    writer.add_scalar("train/patches_per_second", progress.patches_per_second, progress.iteration)
    for steps, psnr in progress.scores.get("psnr_y", {}).items():
        writer.add_scalar(f"validation/psnr_y_{steps}_steps", psnr, progress.iteration)
    if "lpips" in progress.scores:
        writer.add_scalar("validation/lpips", progress.scores["lpips"], progress.iteration)
    writer.flush()
