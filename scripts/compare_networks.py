"""Train every network on the same patches and the same seed, and print one table.

    AGSR_DATA=... python scripts/compare_networks.py OUTPUT_FOLDER [--iterations 1000]

Each network gets the same number of trials of its learning rate, an eighth of a run long. The two
rates with the best PSNR on the validation images make full runs, since what is best for a short run
may be too much for a long one; the better one counts. The optimizer is the same for all, and so are
the loss, the decay of the rate and the averaging of the weights. Runs that are already complete are
not repeated, so the script can be stopped and started again. The score is PSNR-Y in dB.
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from agsr.model.checkpoint import load_checkpoint
from agsr.training.schedule import Schedule

RATES = (6e-4, 2e-3, 6e-3)
TRIAL = 8
FULL = 2
POINTS = 5
"""Validations of a full run, for its curve."""
OPTIMIZER = "muon"
MODELS = ("agsr", "srcnn", "srgan")


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--iterations", default=1000, show_default=True, help="Of the full run.")
@click.option("--crop", default=24, show_default=True, help="Side of an LR patch, pixels.")
@click.option("--batch", default=16, show_default=True, help="Patches per iteration.")
@click.option("--device", default="cpu", show_default=True)
def main(folder: Path, iterations: int, crop: int, batch: int, device: str) -> None:
    """Train and print the table."""
    click.echo(f"{iterations * batch} patches")
    click.echo("| network | rate: PSNR-Y of trials | rate: PSNR-Y of full runs | PSNR-Y |")
    click.echo("|---|---|---|---|")
    for model in MODELS:
        trial = _schedule(model, iterations // TRIAL, crop, batch)
        scores = {
            rate: _run(folder / f"{model}-trial-{rate:g}", model, trial, rate, device, 1)
            for rate in RATES
        }
        schedule = _schedule(model, iterations, crop, batch)
        full = {
            rate: _run(folder / f"{model}-{rate:g}", model, schedule, rate, device, POINTS)
            for rate in sorted(scores, key=lambda rate: -scores[rate])[:FULL]
        }
        click.echo(f"| {model} | {_listed(scores)} | {_listed(full)} | {max(full.values()):.3f} |")


def _listed(scores: Mapping[float, float]) -> str:
    return ", ".join(f"{rate:g}: {score:.3f}" for rate, score in scores.items())


def _schedule(model: str, iterations: int, crop: int, batch: int) -> str:
    """The same patches for all; ours unrolls its loop for the last third."""
    if model != "agsr":
        return f"1x{iterations}@{crop}/{batch}"
    unrolled = iterations // 3
    return f"1x{iterations - unrolled}@{crop}/{batch},4x{unrolled}@{crop}/{batch}"


def _run(
    folder: Path, model: str, schedule: str, rate: float, device: str, validations: int
) -> float:
    """Validation PSNR at the end of a run, which is started or gone on with if need be."""
    weights = folder / "last.safetensors"
    iterations = Schedule.parse(schedule).iterations
    record = load_checkpoint(weights).record if weights.exists() else {"iteration": 0}
    if record.get("schedule", schedule) != schedule:
        sys.exit(f"{folder} was trained by {record['schedule']}, not by {schedule}: remove it")
    if record.get("optimizer", OPTIMIZER) != OPTIMIZER:
        sys.exit(f"{folder} was trained by {record['optimizer']}, not by {OPTIMIZER}: remove it")
    if record["iteration"] < iterations:
        command = [sys.executable, "-m", "agsr", "train", "--model", model, "-o", str(folder)]
        command += ["--schedule", schedule, "--rate", str(rate), "--device", device]
        settings = (
            f"validate_every={max(iterations // validations, 1)}",
            "warmup=20",
            f"optimizer={OPTIMIZER}",
        )
        command += [word for setting in settings for word in ("--set", setting)]
        command += ["--resume"] if (folder / "state.safetensors").exists() else []
        if subprocess.run(command, check=False).returncode:
            click.echo(f"{folder}: failed", err=True)
            return -math.inf
    psnr = load_checkpoint(weights).scores["psnr_y"]
    return float(psnr[max(psnr, key=int)])


if __name__ == "__main__":
    main()
