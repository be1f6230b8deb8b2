"""Print the model card's table: PSNR and SSIM of the shipped weights for 1 to 6 steps.

AGSR_DATA=... python scripts/score_table.py [SET ...]
"""

from __future__ import annotations

import sys

import numpy as np

from agsr.bench.datasets import find_set
from agsr.bench.quality import evaluate
from agsr.catalog import find_checkpoint
from agsr.checkpoint import load_checkpoint
from agsr.contract import SCALE
from agsr.engines.upscaler import Upscaler

STEPS = range(1, 7)
OUTPUT_PIXELS = 1280 * 720


def main(names: list[str]) -> None:
    """Print one row per step count."""
    sets = [find_set(name) for name in names]
    print(f"| steps | GMAC at 1280x720 | {' | '.join(names)} |")
    print("|---|---|" + "---|" * len(names))
    for steps in STEPS:
        with Upscaler("psnr", backend="ort", steps=steps, tile=0) as upscaler:
            reports = [list(evaluate(upscaler, images)) for images in sets]
        cells = [
            f"{np.mean([r.psnr for r in rows]):.3f} / {np.mean([r.ssim for r in rows]):.4f}"
            for rows in reports
        ]
        print(f"| {steps} | {multiplications(steps) / 1e9:.1f} | {' | '.join(cells)} |", flush=True)


def multiplications(steps: int) -> int:
    """Multiply-accumulates of the convolutions for an output of 1280x720 pixels."""
    weights = load_checkpoint(find_checkpoint("psnr")).weights
    sizes = {name: tensor.numel() for name, tensor in weights.items() if name.endswith("weight")}
    repeated = sum(size for name, size in sizes.items() if name.startswith("step."))
    return (sum(sizes.values()) + (steps - 1) * repeated) * OUTPUT_PIXELS // SCALE**2


if __name__ == "__main__":
    main(sys.argv[1:] or ["Set5", "Set14", "BSD100", "Kodak24"])
