"""Take the grid out of trained weights by `agsr.training.checkerboard`.

    AGSR_DATA=... python scripts/balance_phases.py runs/gan/best.safetensors balanced.safetensors

The patches come from the training images; the result is scored on the validation images, and its
record says how it was made. scripts/measure_grid.py tells what it did.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click
import torch

from agsr.bench.data.sets import find_set
from agsr.contract import DEFAULT_STEPS, SCALE
from agsr.datasets.pairs import Pair, load_pairs
from agsr.metrics.lpips import Lpips
from agsr.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from agsr.pretrained import find_checkpoint
from agsr.training.checkerboard import STEP_WEIGHTS, balance_phases
from agsr.training.distributed import World
from agsr.training.evaluation import score
from agsr.training.patch_sampler import PatchBank

PathType = click.Path(exists=True, path_type=Path)


@click.command(help=__doc__)
@click.argument("source")
@click.argument("result", type=click.Path(path_type=Path))
@click.option("--data", type=PathType, envvar="AGSR_DATA", required=True, help="The data folder.")
@click.option("--patches", default=160, show_default=True)
@click.option("--crop", default=64, show_default=True, help="Side of an LR patch, pixels.")
@click.option("--ridge", default=8e-3, show_default=True, help="Price of changed texture.")
@click.option("--seed", default=0, show_default=True, help="Chooses the patches.")
def main(
    source: str, result: Path, data: Path, patches: int, crop: int, ridge: float, seed: int
) -> None:
    """Fit, score and save."""
    checkpoint = load_checkpoint(find_checkpoint(source))
    pairs = load_pairs(sorted((data / "train").glob("*.tar")), min_side=SCALE * crop)
    lr, hr = PatchBank(pairs, seed, World(torch.device("cpu"))).batch(0, patches, crop)
    balanced = balance_phases(checkpoint, lr, hr, ridge)
    made = {
        "of": checkpoint.weights_hash,
        "patches": patches,
        "crop": crop,
        "ridge": ridge,
        "seed": seed,
        "images": len(pairs),
        "step_weights": STEP_WEIGHTS,
    }
    record = {**checkpoint.record, "balanced_phases": made}
    scores = _scores(balanced, data)
    save_checkpoint(dataclasses.replace(balanced, record=record, scores=scores), result)
    click.echo(f"{result}: {scores}")


def _scores(checkpoint: Checkpoint, data: Path) -> dict[str, object]:
    """What a run of the stage ``gan`` would write into its checkpoint."""
    pairs = [Pair(hr=image.hr, lr=image.lr) for image in find_set("Kodak24", data)]
    lpips = Lpips("alexnet", data / "lpips" / "alexnet.npz")
    return score(checkpoint.build(), pairs, DEFAULT_STEPS, lpips)


if __name__ == "__main__":
    main()
