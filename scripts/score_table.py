"""Print the model card's table: PSNR, SSIM and LPIPS of shipped weights by step count.

    AGSR_DATA=... python scripts/score_table.py [--weights NAME] [--lpips alexnet.npz] [SET ...]

GMAC are the multiply-accumulates of the exported graph's convolutions for an output of 1280x720
pixels.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from agsr.bench.datasets import find_set
from agsr.bench.flops import count_flops
from agsr.bench.quality import evaluate, lpips_alex
from agsr.catalog import DEFAULT_WEIGHTS, find_onnx, shipped_steps
from agsr.contract import CHANNELS, SCALE
from agsr.engines.upscaler import Upscaler

OUTPUT_SIZE = (720, 1280)


@click.command(help=__doc__)
@click.argument("names", nargs=-1)
@click.option("--weights", default=DEFAULT_WEIGHTS, show_default=True)
@click.option("--lpips", type=click.Path(exists=True, path_type=Path))
def main(names: tuple[str, ...], weights: str, lpips: Path | None) -> None:
    """Print one row per step count."""
    names = names or ("Set5", "Set14", "BSD100", "Kodak24")
    sets = [find_set(name) for name in names]
    metric = lpips_alex(lpips) if lpips else None
    click.echo(f"| steps | GMAC at 1280x720 | {' | '.join(names)} |")
    click.echo("|---|---|" + "---|" * len(names))
    for steps in shipped_steps(weights):
        cells = []
        with Upscaler(weights, backend="ort", steps=steps, tile=0) as upscaler:
            for images in sets:
                rows = list(evaluate(upscaler, images, metric))
                psnr, ssim = np.mean([(r.psnr, r.ssim) for r in rows], axis=0)
                distance = f" / {np.mean([r.lpips for r in rows]):.4f}" if metric else ""
                cells.append(f"{psnr:.3f} / {ssim:.4f}{distance}")
        click.echo(
            f"| {steps} | {multiplications(weights, steps) / 1e9:.1f} | {' | '.join(cells)} |"
        )


def multiplications(weights: str, steps: int) -> float:
    """Multiply-accumulates of the exported graph's convolutions, for an output of `OUTPUT_SIZE`."""
    height, width = OUTPUT_SIZE[0] // SCALE, OUTPUT_SIZE[1] // SCALE
    return count_flops(find_onnx(weights, steps), (1, CHANNELS, height, width)) / 2


if __name__ == "__main__":
    main()
