"""Print how far enlarged normal maps are off, in degrees: a row per method.

    AGSR_DATA=... python scripts/measure_normals.py [--set Kodak24]

The maps are those of photographs taken for heights, smoothed by a Gaussian of one pixel: as
detailed as relief can be. Each is averaged to a quarter, rounded to 8 bits and enlarged again.
length: the largest deviation of a vector's length from 1.
"""

from __future__ import annotations

from pathlib import Path

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from agsr import Upscaler
from agsr.bench.data.sets import find_set
from agsr.bicubic import upscale
from agsr.contract import SCALE

SLOPE = 0.05
"""Height of a grey level, in pixels."""

RED_AND_GREEN = np.array([1, 1, 0], np.uint8)

Array = NDArray[np.float64]


@click.command(help=__doc__)
@click.option("--set", "name", default="Kodak24", show_default=True)
@click.option("--data", type=click.Path(exists=True, path_type=Path), envvar="AGSR_DATA")
def main(name: str, data: Path) -> None:
    """Print the table."""
    with (
        Upscaler(precision="fp32") as plain,
        Upscaler(precision="fp32", normal_map=True) as normal_map,
    ):
        methods = {
            "Bicubic": upscale,
            "agsr": plain,
            "agsr --normal-map": normal_map,
            "agsr --normal-map, red and green only": lambda lr: normal_map(lr * RED_AND_GREEN),
        }
        rows: dict[str, list[tuple[float, float]]] = {method: [] for method in methods}
        for image in find_set(name, data):
            hr = _normals(image.hr)
            lr = _colours(
                cv2.resize(hr, None, fx=1 / SCALE, fy=1 / SCALE, interpolation=cv2.INTER_AREA)
            )
            for method, enlarge in methods.items():
                rows[method].append(_errors(enlarge(lr) / 127.5 - 1, hr))
    click.echo("| method | angle | length |\n|---|---|---|")
    for method, errors in rows.items():
        angle, length = np.transpose(errors)
        click.echo(f"| {method} | {angle.mean():.2f}° | {length.max():.2f} |")


def _normals(image: NDArray[np.uint8]) -> Array:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float64)
    down, across = np.gradient(cv2.GaussianBlur(grey, (0, 0), 1))
    return _of_unit_length(np.dstack([-SLOPE * across, SLOPE * down, np.ones_like(grey)]))


def _of_unit_length(vectors: Array) -> Array:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=2, keepdims=True).clip(1e-6))


def _colours(vectors: Array) -> NDArray[np.uint8]:
    levels = (_of_unit_length(vectors) + 1) * 127.5
    return np.floor(levels + 0.5).clip(0, 255).astype(np.uint8)


def _errors(found: Array, hr: Array) -> tuple[float, float]:
    """The mean angle, in degrees, and the largest deviation from unit length."""
    cosine = (_of_unit_length(found) * hr).sum(2).clip(-1, 1)
    length = np.linalg.norm(found, axis=2)
    return float(np.degrees(np.arccos(cosine)).mean()), float(abs(length - 1).max())


if __name__ == "__main__":
    main()
