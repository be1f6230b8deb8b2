"""Print how much longer ``agsr infer`` takes for a folder of photos than its network alone.

Photos are cut from the example photo's enlargement, so that they compress like photos. Both take
turns: the command, from its start to its end, and the network in this process, on the same pixels
without reading, tiles or writing.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from agsr.backend import Backend
from agsr.engines.open import open_backend

PHOTO = Path(__file__).parents[1] / "examples" / "astronaut.png"
WIDTH, HEIGHT = 500, 375


def main() -> None:
    """Measure and print the ratio of every turn and their median."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=50)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--turns", type=int, default=3)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, open_backend(steps=chosen.steps) as backend:
        folder = Path(name)
        photos = make_photos(folder / "in", chosen.files)
        network(backend, photos[:1])  # the first run plans for the size
        ratios = []
        for turn in range(chosen.turns):
            alone = network(backend, photos)
            whole = command(folder / "in", folder / f"out{turn}", chosen.steps)
            ratios.append(whole / alone)
            print(f"{whole:.1f} s, network alone {alone:.1f} s: {ratios[-1]:.3f}", flush=True)
    print(f"{backend.info.summary}, {chosen.files} files: {statistics.median(ratios):.3f}")


def make_photos(folder: Path, count: int) -> list[np.ndarray]:
    """Write photos, and give their pixels as batches ``(1, 3, H, W)`` in [0, 1]."""
    folder.mkdir()
    with Image.open(PHOTO) as small:
        large = np.asarray(small.convert("RGB").resize((4 * WIDTH // 2, 4 * HEIGHT // 2)))
    chance = np.random.default_rng(0)
    batches = []
    for number in range(count):
        y = chance.integers(large.shape[0] - HEIGHT)
        x = chance.integers(large.shape[1] - WIDTH)
        photo = np.ascontiguousarray(large[y : y + HEIGHT, x : x + WIDTH])
        Image.fromarray(photo).save(folder / f"{number:03}.jpg", quality=92)
        batches.append((photo.transpose(2, 0, 1)[None] / np.float32(255)).astype(np.float32))
    return [np.ascontiguousarray(batch) for batch in batches]


def network(backend: Backend, photos: list[np.ndarray]) -> float:
    """Seconds of the network for all photos."""
    start = time.perf_counter()
    for photo in photos:
        backend.upscale(photo)
    return time.perf_counter() - start


def command(source: Path, target: Path, steps: int) -> float:
    """Seconds of the whole command for the folder."""
    start = time.perf_counter()
    words = ["infer", "-q", "-r", str(source), "-o", str(target), "--steps", str(steps)]
    subprocess.run([sys.executable, "-m", "agsr", *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
