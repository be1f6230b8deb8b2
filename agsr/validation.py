"""Scoring a generator on whole images while it trains, and images as tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from agsr.data import Image8, Pair
from agsr.generator import Generator
from agsr.metrics import psnr_y


@torch.inference_mode()
def psnr_by_step(generator: Generator, pairs: Sequence[Pair], steps: int) -> list[float]:
    """Mean PSNR-Y in dB over the images, after step 1, 2, ... ``steps``."""
    device = next(generator.parameters()).device
    rows = []
    for pair in pairs:
        outputs = generator.every_step(to_tensor(pair.lr[None], device), steps)
        rows.append([psnr_y(to_image(sr), pair.hr) for sr in outputs])
    return [float(mean) for mean in np.mean(rows, axis=0)]


def to_tensor(images: Image8, device: torch.device) -> Tensor:
    """uint8 ``(B, H, W, 3)`` → float32 ``(B, 3, H, W)`` in [0, 1], channels last in memory."""
    tensor = torch.from_numpy(np.ascontiguousarray(images)).to(device, non_blocking=True)
    return tensor.permute(0, 3, 1, 2).float() / 255


def to_image(sr: Tensor) -> Image8:
    """``(1, 3, H, W)`` in [0, 1] → uint8 ``(H, W, 3)``, clipped and rounded."""
    rounded = (sr[0].float().clamp(0, 1) * 255).round().to(torch.uint8)
    image: Image8 = rounded.permute(1, 2, 0).cpu().numpy()
    return image
