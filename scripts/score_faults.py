"""Print how weights fare on inputs with faults: PSNR-Y and LPIPS by kind of fault.

    AGSR_DATA=... python scripts/score_faults.py psnr gan photo --lpips alexnet.npz [--set Kodak24]

A row per weights (a shipped name, or a file), and one for Bicubic. The faults are laid on the
field's bicubic LR images; ``photo`` are those that `agsr.degradation` draws, each image the same
every time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import cv2
import numpy as np

from agsr.bench.datasets import find_set
from agsr.bench.quality import Distance, compare, lpips_alex
from agsr.data import Image8
from agsr.degradation import degrade
from agsr.engines.upscaler import Upscaler
from agsr.resize import downscale, upscale


def jpeg(image: Image8, quality: int) -> Image8:
    """Save and read an RGB image; chroma is halved, as usual."""
    _, content = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(content, cv2.IMREAD_COLOR), np.uint8)[..., ::-1]


def noisy(image: Image8, strength: float, seed: int) -> Image8:
    """Add Gaussian noise of so many levels."""
    noise = np.random.default_rng(seed).normal(0, strength, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


FAULTS: dict[str, Callable[[Image8, int], Image8]] = {
    "none": lambda hr, _: downscale(hr),
    "JPEG 90": lambda hr, _: jpeg(downscale(hr), 90),
    "JPEG 75": lambda hr, _: jpeg(downscale(hr), 75),
    "JPEG 40": lambda hr, _: jpeg(downscale(hr), 40),
    "noise 8": lambda hr, index: noisy(downscale(hr), 8, index),
    "soft": lambda hr, _: downscale(np.asarray(cv2.GaussianBlur(hr, (0, 0), 1.6), np.uint8)),
    "photo": lambda hr, index: degrade(hr, np.random.default_rng(index)),
}
"""LR images with a fault, by HR image and its index in the set."""


@click.command(help=__doc__)
@click.argument("weights", nargs=-1, required=True)
@click.option("--set", "name", default="Kodak24", show_default=True)
@click.option("--lpips", type=click.Path(exists=True, path_type=Path))
@click.option("-s", "--steps", default=4, show_default=True)
def main(weights: tuple[str, ...], name: str, lpips: Path | None, steps: int) -> None:
    """Print the table."""
    images = [
        np.dstack([image.hr] * 3) if image.hr.ndim == 2 else image.hr for image in find_set(name)
    ]
    metric = lpips_alex(lpips) if lpips else None
    click.echo(f"| {name} | {' | '.join(FAULTS)} |")
    click.echo("|---|" + "---|" * len(FAULTS))
    click.echo(f"| Bicubic | {' | '.join(cells(upscale, images, metric))} |")
    for one in weights:
        with Upscaler(one, steps=steps, precision="fp32") as upscaler:
            click.echo(f"| {one} | {' | '.join(cells(upscaler, images, metric))} |")


def cells(
    upscaler: Callable[[Image8], Image8], images: list[Image8], metric: Distance | None
) -> list[str]:
    """Mean scores of one network, by fault."""
    found = []
    for fault in FAULTS.values():
        scores = [
            compare(upscaler(np.ascontiguousarray(fault(hr, index))), hr, metric)
            for index, hr in enumerate(images)
        ]
        distance = f" / {np.mean([s.lpips for s in scores]):.4f}" if metric else ""
        found.append(f"{np.mean([s.psnr for s in scores]):.2f}{distance}")
    return found


if __name__ == "__main__":
    main()
