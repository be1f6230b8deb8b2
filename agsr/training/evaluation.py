"""Scoring a network on whole images while it trains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agsr.datasets.pairs import Pair
from agsr.metrics import BORDER, BT601
from agsr.metrics.lpips import Lpips
from agsr.model.base import Network
from agsr.model.tensors import to_tensor


@torch.inference_mode()
def score(
    network: Network, pairs: Sequence[Pair], steps: int, lpips: Lpips | None = None
) -> dict[str, Any]:
    """Mean scores over the images, computed on the network's device, which is waited for once.

    Args:
        network: In evaluation mode.
        pairs: HR and LR images.
        steps: Time steps; PSNR is taken after each of them, LPIPS after the last.
        lpips: The metric, on the network's device; None leaves it out.

    Returns:
        ``{"psnr_y": {"1": dB, ...}}``, with a metric also ``"lpips"``.
    """
    device = next(network.parameters()).device
    weights = torch.tensor(BT601, device=device)
    errors, distances = [], []
    for pair in pairs:
        outputs = network.every_step(to_tensor(pair.lr[None], device), steps)
        hr = to_tensor(pair.hr[None], device)
        errors.append(torch.stack([_luma_error(sr, hr, weights) for sr in outputs]))
        if lpips is not None:
            distances.append(lpips(outputs[-1].float().clamp(0, 1), hr))
    psnr = [[decibels(error) for error in row] for row in torch.stack(errors).tolist()]
    means = np.mean(psnr, axis=0)
    found: dict[str, Any] = {
        "psnr_y": {str(step): round(float(mean), 4) for step, mean in enumerate(means, 1)}
    }
    if distances:
        found["lpips"] = round(float(torch.cat(distances).mean()), 5)
    return found


def decibels(error: float) -> float:
    """PSNR of a mean squared error of 8-bit levels; infinite for 0."""
    return 10 * math.log10(255**2 / error) if error else math.inf


def _luma_error(sr: Tensor, hr: Tensor, weights: Tensor) -> Tensor:
    """Mean squared error of 8-bit BT.601 luma as in `agsr.metrics.psnr_y`, a float64 scalar."""
    levels = (255 * sr.float().clamp(0, 1)).round() - (255 * hr).round()
    inside = levels[0, :, BORDER:-BORDER, BORDER:-BORDER].double()
    error: Tensor = torch.tensordot(weights, inside, dims=1).square().mean()
    return error
