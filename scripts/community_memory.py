"""Measure the memory for a 12-megapixel photograph by another project's network, and its seams.

    python scripts/community_memory.py WEIGHTS [--backend torch] [--limit 4] [--rows 384]

The photograph is synthetic, 4000x3000 pixels, and only bands down to `--rows` are computed; memory
is the same for the others. Free memory is reported as what `--limit` leaves, so that tiles are
chosen as on a machine of that size. Without WEIGHTS, it is a DAT light of random weights with 18
blocks; `--depth 2` computes several times as fast, but needs less memory per pixel of a tile, 7.8
instead of 19.5 kB, and so has larger tiles. Prints the peak of the process's memory, and for
blended tiles their difference and largest step.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
import warnings
from pathlib import Path
from unittest.mock import patch

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from agsr import Upscaler
from agsr.image.picture import Picture

SIZE = (3000, 4000)
HEADROOM = 0.05
"""Share of the limit that is left to the rest of the machine."""


def main() -> None:
    """Run the bands and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("weights", nargs="?")
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--limit", type=float, default=4.0, help="GB")
    parser.add_argument("--rows", type=int, default=384)
    parser.add_argument("--depth", type=int, default=18, help="blocks of the DAT light")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    limit = int(arguments.limit * (1 - HEADROOM) * (1 << 30))
    process = psutil.Process()

    def left() -> int:
        return max(0, limit - process.memory_info().rss)

    with (
        tempfile.TemporaryDirectory() as folder,
        patch("agsr.engines.tile_policy.free_memory", left),
    ):
        weights = arguments.weights or str(
            dat_light(Path(folder, "dat-light.pth"), arguments.depth)
        )
        with Upscaler(weights, backend=arguments.backend) as upscaler:
            run(upscaler, arguments.rows)
    print(f"peak: {peak() / (1 << 30):.2f} GB of {arguments.limit:g}")


def run(upscaler: Upscaler, rows: int) -> None:
    """Read bands of the photograph's result, as a writer does."""
    began, done = time.monotonic(), 0

    def show(share: float) -> None:
        seconds, memory = time.monotonic() - began, peak() / (1 << 30)
        print(f"{share:.1%} of the tiles, {done} rows, {seconds:.0f} s, peak {memory:.2f} GB")
        sys.stdout.flush()

    bands = upscaler.row_bands(Picture(photo()), show)
    for band in bands.bands:
        done += len(band.pixels)
        if done >= rows * upscaler.info.scale:
            break
    bands.close()
    print(f"{upscaler.info.summary}: {upscaler.seams}" if upscaler.seams.difference else "exact")


def photo() -> NDArray[np.uint8]:
    """Return noise with the spectrum of photographs, ``(3000, 4000, 3)``."""
    generator = np.random.default_rng(0)
    levels = np.full((*SIZE, 3), 128, np.float32)
    for octave in range(1, 9):
        side = 2**octave
        shape = (-(-SIZE[0] // side), -(-SIZE[1] // side), 3)
        noise = generator.standard_normal(shape, np.float32) * side**0.75
        levels += noise.repeat(side, axis=0).repeat(side, axis=1)[: SIZE[0], : SIZE[1]]
    return levels.clip(0, 255).astype(np.uint8)


def dat_light(path: Path, depth: int) -> Path:
    """Write random weights of the size of DAT light, x4."""
    from spandrel.architectures import DAT

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about how the network computes constants
        network = DAT.DAT(
            img_size=64,
            embed_dim=60,
            split_size=[8, 32],
            depth=[depth],
            num_heads=[6],
            expansion_factor=2,
            resi_connection="3conv",
            upsampler="pixelshuffledirect",
            upscale=4,
        )
    torch.save({"params": network.state_dict()}, path)
    return path


def peak() -> int:
    """Return the largest memory of this process so far, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()
