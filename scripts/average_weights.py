"""Average two checkpoints of one network, at the share that scores best on the validation images.

    AGSR_DATA=... python scripts/average_weights.py b.safetensors a.safetensors average.safetensors

The second must have been trained on from the first, or both from a third: such weights lie in one
valley, and between them the errors are often smaller (Wortsman et al., 2022, "Model soups").
"""

from __future__ import annotations

from pathlib import Path

import click

from agsr.bench.data.sets import find_set
from agsr.contract import DEFAULT_STEPS
from agsr.datasets.pairs import Pair
from agsr.model.checkpoint import blend, load_checkpoint, save_checkpoint
from agsr.training.evaluation import score

SHARES = (0.0, 0.15, 0.3, 0.5, 0.7, 0.85, 1.0)
PATH = click.Path(path_type=Path)


@click.command(help=__doc__)
@click.argument("first", type=PATH)
@click.argument("second", type=PATH)
@click.argument("target", type=PATH)
@click.option("--set", "name", default="Kodak24", show_default=True, help="Images to choose on.")
@click.option("--share", type=click.FloatRange(0, 1), help="Of the second, to score no others.")
def main(first: Path, second: Path, target: Path, name: str, share: float | None) -> None:
    """Score every share of the second, and keep the best."""
    pairs = [Pair(image.hr, image.lr) for image in find_set(name)]
    ends = [load_checkpoint(path) for path in (first, second)]
    psnr = {}
    for part in SHARES if share is None else (share,):
        found = score(blend(*ends, part).build(), pairs, DEFAULT_STEPS)
        psnr[part] = found["psnr_y"][str(DEFAULT_STEPS)]
        click.echo(f"{part:.2f} of {second}: {psnr[part]:.4f} dB", err=True)
    save_checkpoint(blend(*ends, max(psnr, key=psnr.__getitem__)), target)
    click.echo(target)


if __name__ == "__main__":
    main()
