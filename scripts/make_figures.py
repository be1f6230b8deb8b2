"""Make the pictures of the documentation, each by one command, into docs/figures/.

    python scripts/make_figures.py crops PHOTO_HR.png Y X [--weights NAME_OR_FILE ...] [--jpeg 50]
    python scripts/make_figures.py attention PHOTO_HR.png ...
    python scripts/make_figures.py curves RUN_FOLDER ...

crops: the same crop, from (Y, X) in HR pixels, of the original, Bicubic and the named weights (the
paper's Fig. 7). attention: each photo's maps, step by step (Fig. 4). curves: PSNR on the validation
images against the patches seen, a line per training run (Fig. 8). Photos are shrunk by four first,
for crops with --jpeg compressed as well.
"""

from __future__ import annotations

from pathlib import Path

import click
import cv2
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from agsr.bench.report.crops import attention_maps, to_grey_images
from agsr.bicubic import crop_to_multiple, downscale, upscale
from agsr.datasets.degradation import through_jpeg
from agsr.engines.upscaler import Upscaler
from agsr.image import read_rgb, write_picture
from agsr.image.picture import Picture
from agsr.metrics import psnr_y
from agsr.model.checkpoint import Checkpoint, load_checkpoint
from agsr.pretrained import DEFAULT_WEIGHTS, find_checkpoint

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
CROP = 128
ZOOM = 2
STEPS = 4

Image8 = NDArray[np.uint8]
PathType = click.Path(exists=True, path_type=Path)


@click.group(help=__doc__)
def main() -> None:
    """Group of the commands."""


@main.command()
@click.argument("photo", type=PathType)
@click.argument("y", type=int)
@click.argument("x", type=int)
@click.option("--weights", multiple=True, default=[DEFAULT_WEIGHTS])
@click.option("--name", default="before-after", show_default=True)
@click.option("--jpeg", type=click.IntRange(1, 100), help="Quality the input is saved in first.")
def crops(
    photo: Path, y: int, x: int, weights: tuple[str, ...], name: str, jpeg: int | None
) -> None:
    """The same crop by every method (Fig. 7)."""
    hr = crop_to_multiple(read_rgb(photo))
    lr = downscale(hr) if jpeg is None else through_jpeg(downscale(hr), jpeg)
    columns = [("original", hr), ("Bicubic", upscale(lr))]
    for source in weights:
        with Upscaler(source, backend="torch") as upscaler:
            title = _title(load_checkpoint(find_checkpoint(source)))
            shipped = "/" not in source and "." not in source
            columns.append((f"agsr {source}" if shipped else title, upscaler(lr)))
    tiles = []
    for title, image in columns:
        score = "" if image is hr else f"  {psnr_y(image, hr):.2f} dB"
        tiles.append(_titled(_zoom(image[y : y + CROP, x : x + CROP], ZOOM), title + score))
    _write(np.concatenate(tiles, axis=1), name)


@main.command()
@click.argument("photos", type=PathType, nargs=-1, required=True)
@click.option("--weights", default=DEFAULT_WEIGHTS, show_default=True)
def attention(photos: tuple[Path, ...], weights: str) -> None:
    """Photos and their attention maps by step; white is a photo's largest value (Fig. 4)."""
    rows = []
    for photo in photos:
        lr = downscale(crop_to_multiple(read_rgb(photo)))
        maps = attention_maps(weights, lr, STEPS)
        tiles = [_titled(_zoom(lr, ZOOM), "input")]
        for step, (plane, grey) in enumerate(zip(maps, to_grey_images(maps), strict=True), 1):
            title = f"A{step}  {plane.min():.2f} to {plane.max():.2f}"
            shown = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), np.uint8)
            tiles.append(_titled(_zoom(shown, ZOOM), title))
        rows.append(np.concatenate(tiles, axis=1))
    width = max(row.shape[1] for row in rows)
    wide = [np.pad(r, ((0, 0), (0, width - r.shape[1]), (0, 0)), constant_values=255) for r in rows]
    _write(np.concatenate(wide, axis=0), "attention")


@main.command()
@click.argument("runs", type=PathType, nargs=-1, required=True)
def curves(runs: tuple[Path, ...]) -> None:
    """PSNR on the validation images against the patches seen (Fig. 8)."""
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for run in runs:
        weights = load_checkpoint(run / "last.safetensors")
        history = weights.record["history"]
        patches = [row["patches"] for row in history]
        psnr = [row["psnr_y"][str(row["steps"])] for row in history]
        axes.plot(patches, psnr, marker=".", label=_title(weights))
    axes.set(xlabel="training patches", ylabel="PSNR-Y on the validation images, dB")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    FIGURES.mkdir(exist_ok=True)
    figure.savefig(FIGURES / "curves.svg", metadata={"Date": None})
    click.echo(FIGURES / "curves.svg")


def _title(weights: Checkpoint) -> str:
    """Name of a network: SRGAN's generator, trained without its discriminator, is SRResNet."""
    if weights.model == "srgan":
        return "SRResNet" if weights.record.get("stage") == "psnr" else "SRGAN"
    return {"srcnn": "SRCNN"}.get(weights.model, weights.model)


def _zoom(image: Image8, factor: int) -> Image8:
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def _titled(image: Image8, title: str) -> Image8:
    """The image under a white band with its title, and a white margin around."""
    framed = np.asarray(
        cv2.copyMakeBorder(image, 28, 4, 4, 4, cv2.BORDER_CONSTANT, value=(255, 255, 255)), np.uint8
    )
    font, black = cv2.FONT_HERSHEY_SIMPLEX, (0, 0, 0)
    cv2.putText(framed, title, (6, 20), font, 0.5, black, 1, cv2.LINE_AA)
    return framed


def _write(image: Image8, name: str) -> None:
    FIGURES.mkdir(exist_ok=True)
    path = FIGURES / f"{name}.png"
    write_picture(Picture(np.ascontiguousarray(image)), path)
    click.echo(path)


if __name__ == "__main__":
    main()
