"""Print the model card's tables: PSNR, SSIM and LPIPS of shipped weights by step count.

    AGSR_DATA=... python scripts/score_table.py [--weights NAME] [--lpips alexnet.npz] [SET ...]
    AGSR_DATA=... python scripts/score_table.py --file a.onnx --file b.onnx [SET ...]

The second form has a row per file of ``agsr export``.

GMAC are the multiply-accumulates of the exported graph's convolutions for an output of 1280x720
pixels.
"""

from __future__ import annotations

from pathlib import Path

import click

from agsr.bench.data.sets import find_set
from agsr.bench.runner.flops import count_flops
from agsr.bench.scoring import evaluate, lpips_alex, mean_scores
from agsr.contract import CHANNELS, SCALE
from agsr.engines.upscaler import Upscaler
from agsr.pretrained import DEFAULT_WEIGHTS, find_onnx, shipped_steps

OUTPUT_SIZE = (720, 1280)
PATH = click.Path(exists=True, path_type=Path)


@click.command(help=__doc__)
@click.argument("names", nargs=-1)
@click.option("--weights", default=DEFAULT_WEIGHTS, show_default=True)
@click.option("--file", "files", type=PATH, multiple=True, help="Instead of shipped weights.")
@click.option("--lpips", type=PATH)
def main(names: tuple[str, ...], weights: str, files: tuple[Path, ...], lpips: Path | None) -> None:
    """Print one row per step count or file."""
    names = names or ("Set5", "Set14", "BSD100", "Kodak24")
    sets = [find_set(name) for name in names]
    metric = lpips_alex(lpips) if lpips else None
    rows = [(path.stem, path) for path in files] or [
        (str(steps), find_onnx(weights, steps)) for steps in shipped_steps(weights)
    ]
    click.echo(f"| {'network' if files else 'steps'} | GMAC at 1280x720 | {' | '.join(names)} |")
    click.echo("|---|---|" + "---|" * len(names))
    for title, path in rows:
        cells = []
        with Upscaler(str(path), backend="ort", tile=0) as upscaler:
            for images in sets:
                mean = mean_scores([row.scores for row in evaluate(upscaler, images, metric)])
                distance = "" if mean.lpips is None else f" / {mean.lpips:.4f}"
                cells.append(f"{mean.psnr:.3f} / {mean.ssim:.4f}{distance}")
        click.echo(f"| {title} | {multiplications(path) / 1e9:.1f} | {' | '.join(cells)} |")


def multiplications(path: Path) -> float:
    """Multiply-accumulates of the exported graph's convolutions, for an output of `OUTPUT_SIZE`."""
    height, width = OUTPUT_SIZE[0] // SCALE, OUTPUT_SIZE[1] // SCALE
    return count_flops(path, (1, CHANNELS, height, width)) / 2


if __name__ == "__main__":
    main()
