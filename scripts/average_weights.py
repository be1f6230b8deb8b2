"""Average two checkpoints of one network, at the share that scores best on the validation images.

    AGSR_DATA=... python scripts/average_weights.py b.safetensors a.safetensors average.safetensors

The second must have been trained on from the first, or both from a third: such weights lie in one
valley, and between them the errors are often smaller (Wortsman et al., 2022, "Model soups").
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from agsr.bench.datasets import find_set
from agsr.bench.quality import evaluate
from agsr.checkpoint import blend, load_checkpoint, save_checkpoint
from agsr.engines.torch_backend import TorchBackend
from agsr.engines.upscaler import Upscaler

SHARES = (0.0, 0.15, 0.3, 0.5, 0.7, 0.85, 1.0)
PATH = click.Path(path_type=Path)


@click.command(help=__doc__)
@click.argument("first", type=PATH)
@click.argument("second", type=PATH)
@click.argument("target", type=PATH)
@click.option("--set", "name", default="Kodak24", show_default=True, help="Images to choose on.")
def main(first: Path, second: Path, target: Path, name: str) -> None:
    """Score every share of the second, and keep the best."""
    images, ends = find_set(name), [load_checkpoint(path) for path in (first, second)]
    best = -np.inf
    for share in SHARES:
        average = blend(*ends, share)
        save_checkpoint(average, trial := target.with_suffix(".trial.safetensors"))
        with Upscaler(backend=TorchBackend(trial, precision="fp32"), tile=0) as upscaler:
            psnr = float(np.mean([row.psnr for row in evaluate(upscaler, images)]))
        click.echo(f"{share:.2f} of {second}: {psnr:.4f} dB", err=True)
        if psnr > best:
            best = psnr
            trial.replace(target)
        trial.unlink(missing_ok=True)
    click.echo(target)


if __name__ == "__main__":
    main()
