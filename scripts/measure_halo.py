"""Measure what a halo smaller than the receptive radius costs: tiled against whole, on photos.

    AGSR_DATA=... python scripts/measure_halo.py [--tile 48] [--images 24]

Prints a Markdown table: largest difference in 8-bit levels, and the share of values that differ.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agsr.bench.data.sets import find_set
from agsr.engines.open import open_backend
from agsr.engines.upscaler import Upscaler

HALOS = (0, 4, 8, 12, 16, 24)
STEPS = (1, 2, 4, 6)

Photos = Sequence[NDArray[np.uint8]]


def main(tile: int, images: int) -> None:
    """Print the table."""
    photos = [image.lr for image, _ in zip(find_set("Kodak24"), range(images), strict=False)]
    print(f"| steps | exact halo | {' | '.join(f'halo {halo}' for halo in HALOS)} |")
    print("|---|---|" + "---|" * len(HALOS))
    for steps in STEPS:
        radius, cells = measure(photos, steps, tile)
        print(f"| {steps} | {radius} | {' | '.join(cells)} |", flush=True)


def measure(photos: Photos, steps: int, tile: int) -> tuple[int, list[str]]:
    """The exact halo, and a table cell per halo of `HALOS`."""
    with open_backend("ort", steps=steps) as backend:
        whole = [Upscaler(backend=backend, tile=0)(photo) for photo in photos]
        cells = [
            _cell(whole, [Upscaler(backend=backend, tile=tile, halo=halo)(p) for p in photos])
            for halo in HALOS
        ]
        return backend.info.receptive_radius, cells


def _cell(whole: Photos, tiled: Photos) -> str:
    differences = [np.abs(a.astype(int) - b) for a, b in zip(whole, tiled, strict=True)]
    largest = max(int(d.max()) for d in differences)
    share = float(np.mean([(d > 0).mean() for d in differences]))
    return f"{largest} ({share:.2%})" if largest else "0"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tile", type=int, default=48)
    parser.add_argument("--images", type=int, default=24)
    arguments = parser.parse_args()
    main(arguments.tile, arguments.images)
