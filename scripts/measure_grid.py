"""Print how strong the grid of period 4 is: a row per step count, beside Bicubic and `psnr`.

    AGSR_DATA=... python scripts/measure_grid.py gan [FILE.safetensors ...] [--set Kodak24]

grid: root mean square of `agsr.training.losses.phase_shifts`, in 8-bit levels, mean over the
images; flat: the same over the squares whose HR pixels deviate by less than `FLAT` levels. Texture
that differs from the original counts a little too, so even Bicubic isn't at 0. colour: the largest
difference between the mean colours of SR and HR on any image, in levels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from agsr.bench.data.sets import ImageSet, find_set
from agsr.bench.scoring import Distance, lpips_alex
from agsr.bicubic import upscale
from agsr.contract import SCALE
from agsr.metrics import psnr_y
from agsr.model.checkpoint import load_checkpoint
from agsr.model.tensors import to_image, to_tensor
from agsr.pretrained import find_checkpoint
from agsr.training.losses import PHASE_AREA, phase_shifts

FLAT = 8
MOST_STEPS = 6
STRIDE = 4
"""LR pixels from one square to the next."""
CPU = torch.device("cpu")

Outputs = Callable[[np.ndarray], list[Tensor]]


@click.command(help=__doc__)
@click.argument("weights", nargs=-1, required=True)
@click.option("--set", "name", default="Kodak24", show_default=True)
@click.option("--data", type=click.Path(exists=True, path_type=Path), envvar="AGSR_DATA")
def main(weights: tuple[str, ...], name: str, data: Path) -> None:
    """Print the table."""
    images = find_set(name, data)
    metric = lpips_alex(data / "lpips" / "alexnet.npz")
    click.echo("| weights | steps | grid | flat | PSNR-Y | LPIPS | colour |")
    click.echo("|---|---|---|---|---|---|---|")
    every = [str(step) for step in range(1, MOST_STEPS + 1)]
    methods = [("Bicubic", ["–"], _bicubic), ("psnr", ["4"], _network("psnr", first=4, last=4))]
    methods += [(w, every, _network(w, first=1, last=MOST_STEPS)) for w in weights]
    for method, steps, outputs in methods:
        measured = np.array(list(_measure(outputs, images, metric)))
        for step, row in zip(steps, _rows(measured), strict=True):
            grid, flat, psnr, lpips, colour = row
            click.echo(
                f"| {Path(method).stem} | {step} | {grid:.2f} | {flat:.2f} | {psnr:.3f} "
                f"| {lpips:.4f} | {colour:.2f} |"
            )


def _rows(measured: np.ndarray) -> np.ndarray:
    """(image, step, measure) → (step, measure): means, of the colour shift the largest."""
    rows = np.nanmean(measured, axis=0)  # an image without a flat square has no such figure
    rows[:, -1] = measured[..., -1].max(axis=0)
    return rows


def _bicubic(lr: np.ndarray) -> list[Tensor]:
    return [to_tensor(upscale(lr)[None], CPU)]


def _network(source: str, *, first: int, last: int) -> Outputs:
    network = load_checkpoint(find_checkpoint(source)).build()
    return lambda lr: network.every_step(to_tensor(lr[None], CPU), last)[first - 1 :]


@torch.inference_mode()
def _measure(
    outputs: Outputs, images: ImageSet, metric: Distance
) -> Iterator[list[tuple[float, ...]]]:
    """Per image: grid, flat, PSNR, LPIPS and colour shift after every step."""
    for image in images:
        hr = to_tensor(image.hr[None], CPU)
        flat = _deviation(255 * hr) < FLAT
        rows = []
        for sr in outputs(image.lr):
            squares = (255 * phase_shifts(sr, hr, stride=STRIDE)).square().mean((1, 2))
            colour = 255 * (sr - hr).mean((2, 3)).abs().max()
            sr8 = to_image(sr)
            figures = squares.mean().sqrt(), squares[flat].mean().sqrt()
            quality = psnr_y(sr8, image.hr), metric(sr8, image.hr)
            rows.append((*map(float, figures), *quality, float(colour)))
        yield rows


def _deviation(hr: Tensor) -> Tensor:
    """Standard deviation of every square's pixels, ``(1, rows, columns)``."""
    mean, power = (F.avg_pool2d(x, PHASE_AREA, SCALE * STRIDE) for x in (hr, hr.square()))
    return (power - mean.square()).mean(1).clamp(min=0).sqrt()


if __name__ == "__main__":
    main()
