"""Print the throughput of ``--tile auto`` against that of the image in one piece.

    python scripts/measure_tiles.py [--size 750x1000] [--steps 4] [--turns 7]

Both take turns on one loaded network, arrays in and out; the ratio is of the medians.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from agsr import Upscaler
from agsr.engines.open import open_backend


def main() -> None:
    """Measure and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="750x1000", help="Height x width, pixels.")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--turns", type=int, default=7)
    chosen = parser.parse_args()
    height, width = map(int, chosen.size.split("x"))
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    with open_backend(steps=chosen.steps) as backend:
        upscalers = [Upscaler(backend=backend, tile=tile) for tile in (0, "auto")]
        seconds: list[list[float]] = [[], []]
        for turn in range(chosen.turns + 1):
            for upscaler, taken in zip(upscalers, seconds, strict=True):
                start = time.perf_counter()
                upscaler(image)
                if turn:  # the first plans for the size
                    taken.append(time.perf_counter() - start)
    whole, tiled = map(statistics.median, seconds)
    print(f"{backend.info.summary}, {width}x{height}: whole {whole:.3f} s, tiled {tiled:.3f} s")
    print(f"tiled throughput: {100 * whole / tiled:.0f} % of that of the whole")


if __name__ == "__main__":
    main()
