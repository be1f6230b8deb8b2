"""Scoring a network on whole images while it trains, and images as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agsr.data import Image8, Pair
from agsr.metrics import psnr_y
from agsr.network import Network
from agsr.perceptual import Lpips


@torch.inference_mode()
def score(
    network: Network, pairs: Sequence[Pair], steps: int, lpips: Lpips | None = None
) -> dict[str, Any]:
    """Mean scores over the images.

    Args:
        network: In evaluation mode.
        pairs: HR and LR images.
        steps: Time steps; PSNR is taken after each of them, LPIPS after the last.
        lpips: The metric, on the network's device; None leaves it out.

    Returns:
        ``{"psnr_y": {"1": dB, ...}}``, with a metric also ``"lpips"``.
    """
    device = next(network.parameters()).device
    psnr, distances = [], []
    for pair in pairs:
        outputs = network.every_step(to_tensor(pair.lr[None], device), steps)
        psnr.append([psnr_y(to_image(sr), pair.hr) for sr in outputs])
        if lpips is not None:
            hr = to_tensor(pair.hr[None], device)
            distances.append(float(lpips(outputs[-1].float().clamp(0, 1), hr)))
    means = np.mean(psnr, axis=0)
    found: dict[str, Any] = {
        "psnr_y": {str(step): round(float(mean), 4) for step, mean in enumerate(means, 1)}
    }
    if distances:
        found["lpips"] = round(float(np.mean(distances)), 5)
    return found


def to_tensor(images: Image8, device: torch.device) -> Tensor:
    """uint8 ``(B, H, W, 3)`` → float32 ``(B, 3, H, W)`` in [0, 1], channels last in memory."""
    tensor = torch.from_numpy(np.ascontiguousarray(images)).to(device, non_blocking=True)
    return tensor.permute(0, 3, 1, 2).float() / 255


def to_image(sr: Tensor) -> Image8:
    """``(1, 3, H, W)`` in [0, 1] → uint8 ``(H, W, 3)``, clipped and rounded."""
    rounded = (sr[0].float().clamp(0, 1) * 255).round().to(torch.uint8)
    image: Image8 = rounded.permute(1, 2, 0).cpu().numpy()
    return image
