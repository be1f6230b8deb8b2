"""Scoring a network on whole images while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from agsr.data import Pair
from agsr.metrics import psnr_y
from agsr.network import Network
from agsr.perceptual import Lpips
from agsr.tensors import to_image, to_tensor


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
