"""Whether tiles of several requests would gain from sharing a batch: figures of docs/serve.md.

    python scripts/measure_batches.py

Eight tiles run one by one and in batches of 2, 4 and 8, in turns, on each backend of the CPU.
"""

from __future__ import annotations

import statistics
import time

import numpy as np

from agsr.backend import Backend
from agsr.engines.open import open_backend
from agsr.errors import AgsrError

TILES, ROUNDS = 8, 5
SIDES = (32, 64, 128)
BATCHES = (1, 2, 4, 8)


def seconds(backend: Backend, tiles: np.ndarray, batch: int) -> float:
    """Return the wall time of all tiles in batches of this size."""
    started = time.perf_counter()
    for first in range(0, len(tiles), batch):
        backend.upscale(tiles[first : first + batch])
    return time.perf_counter() - started


def main() -> None:
    """Print the time of each batch size, relative to one tile after the other."""
    print("| backend | tile |", " | ".join(f"batches of {n}" for n in BATCHES[1:]), "|")
    print("|---|---|", "---|" * len(BATCHES[1:]), sep="")
    for name in ("ort", "openvino"):
        try:
            backend = open_backend(weights="psnr", steps=1, backend=name, precision="fp32")
        except AgsrError as error:
            print(f"| {name} | {error} |")
            continue
        for side in SIDES:
            tiles = np.random.default_rng(0).random((TILES, 3, side, side), np.float32)
            found = [[seconds(backend, tiles, n) for n in BATCHES] for _ in range(ROUNDS + 1)][1:]
            ratios = zip(*([x / row[0] for x in row] for row in found), strict=True)
            shown = [f"{statistics.median(column):.2f}" for column in ratios][1:]
            print(f"| {name} | {side}x{side} |", " | ".join(shown), "|")
        backend.close()


if __name__ == "__main__":
    main()
