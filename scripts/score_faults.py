"""Print how weights fare on inputs with faults: PSNR-Y and LPIPS by kind of fault.

    AGSR_DATA=... python scripts/score_faults.py psnr gan photo --lpips alexnet.npz [--set Kodak24]

A row per weights (a shipped name, or a file), and one for Bicubic. The faults are laid on the
field's bicubic LR images, but for ``soft``, which blurs the HR images before; ``photo`` are those
that `agsr.datasets.degradation` draws, not the ones that training is validated on, each image the
same every time. --save and --results put another program's results into the table.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import cv2
import numpy as np
from PIL import Image

from agsr.bench.data.sets import TestImage, find_set
from agsr.bench.scoring import lpips_alex
from agsr.bicubic import downscale, upscale
from agsr.datasets.degradation import degrade, through_jpeg
from agsr.datasets.pairs import Image8
from agsr.engines.upscaler import Upscaler
from agsr.image import read_rgb
from agsr.metrics import psnr_y

PATH = click.Path(path_type=Path)


def noisy(image: Image8, strength: float, seed: int) -> Image8:
    """Add Gaussian noise of so many levels."""
    noise = np.random.default_rng(seed).normal(0, strength, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


FAULTS: dict[str, Callable[[Image8, int], Image8]] = {
    "none": lambda hr, _: downscale(hr),
    "JPEG 90": lambda hr, _: through_jpeg(downscale(hr), 90),
    "JPEG 75": lambda hr, _: through_jpeg(downscale(hr), 75),
    "JPEG 40": lambda hr, _: through_jpeg(downscale(hr), 40),
    "noise 8": lambda hr, index: noisy(downscale(hr), 8, index),
    "soft": lambda hr, _: downscale(np.asarray(cv2.GaussianBlur(hr, (0, 0), 1.6), np.uint8)),
    "photo": lambda hr, index: degrade(hr, np.random.default_rng([1, index])),
}
"""LR images with a fault, by HR image and its index in the set."""


@click.command(help=__doc__)
@click.argument("weights", nargs=-1)
@click.option("--set", "name", default="Kodak24", show_default=True)
@click.option("--fault", "chosen", type=click.Choice(list(FAULTS)), multiple=True)
@click.option("--lpips", type=PATH, help="alexnet.npz")
@click.option("-s", "--steps", default=4, show_default=True)
@click.option("--save", type=PATH, help="Write the LR images here, for other programs.")
@click.option("--results", type=PATH, multiple=True, help="What one made of them, by their names.")
def main(
    weights: tuple[str, ...],
    name: str,
    chosen: tuple[str, ...],
    lpips: Path | None,
    steps: int,
    save: Path | None,
    results: tuple[Path, ...],
) -> None:
    """Print the table."""
    faults = chosen or tuple(FAULTS)
    inputs = [
        Input(image, index, fault) for fault in faults for index, image in enumerate(find_set(name))
    ]
    if save:
        save.mkdir(parents=True, exist_ok=True)
        for one in inputs:
            Image.fromarray(one.lr).save(save / one.file)
    metric = lpips_alex(lpips) if lpips else None

    def row(title: str, method: Callable[[Input], Image8]) -> None:
        scores: dict[str, list[tuple[float, ...]]] = {fault: [] for fault in faults}
        for one in inputs:
            sr = method(one)
            distance = (metric(sr, one.hr),) if metric else ()
            scores[one.fault].append((psnr_y(sr, one.hr), *distance))
        click.echo(f"| {title} | {' | '.join(map(_cell, scores.values()))} |")

    click.echo(f"| {name} | {' | '.join(faults)} |")
    click.echo("|---|" + "---|" * len(faults))
    row("Bicubic", lambda one: upscale(one.lr))
    for title in weights:
        with Upscaler(title, steps=steps, precision="fp32") as upscaler:
            row(title, partial(_enlarged, upscaler))
    for folder in results:
        row(folder.name, partial(_read, folder))


class Input:
    """An LR image with a fault."""

    def __init__(self, image: TestImage, index: int, fault: str) -> None:
        self.hr = np.dstack([image.hr] * 3) if image.hr.ndim == 2 else image.hr
        self.lr = np.ascontiguousarray(FAULTS[fault](self.hr, index))
        self.fault = fault
        self.file = f"{image.name}-{fault.replace(' ', '')}.png"


def _enlarged(upscaler: Upscaler, one: Input) -> Image8:
    return upscaler(one.lr)


def _read(folder: Path, one: Input) -> Image8:
    return read_rgb(folder / one.file)


def _cell(scores: list[tuple[float, ...]]) -> str:
    """Mean PSNR, and mean LPIPS if it was taken."""
    psnr, *lpips = np.mean(scores, axis=0)
    return " / ".join([f"{psnr:.2f}", *(f"{distance:.3f}" for distance in lpips)])


if __name__ == "__main__":
    main()
