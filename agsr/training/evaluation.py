"""Validation during training: scores on whole images, and the choice of the best weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agsr.datasets.pairs import Pair
from agsr.metrics import BORDER
from agsr.metrics.lpips import Lpips
from agsr.metrics.luma import LIMITED_RANGE_WEIGHTS
from agsr.metrics.psnr_ssim import decibels
from agsr.model.base import Network
from agsr.model.tensors import to_tensor
from agsr.training.config import Stage
from agsr.training.state import TrainingState


@torch.inference_mode()
def score(
    network: Network, pairs: Sequence[Pair], steps: int, lpips: Lpips | None = None
) -> dict[str, Any]:
    """Compute mean scores over whole images, with a single synchronization with the device.

    Args:
        network: Network in evaluation mode.
        pairs: HR and LR images.
        steps: Time steps; PSNR is computed after each of them, LPIPS after the last.
        lpips: The metric, on the network's device; None skips it.

    Returns:
        ``{"psnr_y": {"1": dB, ...}}``, and ``"lpips"`` if the metric is given.
    """
    device = next(network.parameters()).device
    weights = torch.tensor(LIMITED_RANGE_WEIGHTS, device=device)
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


def record_scores(state: TrainingState, scores: dict[str, Any], steps: int) -> bool:
    """Add a validation to a run's history; return True if its weights are the best so far.

    Scores of different step counts, or with and without LPIPS, can't be compared: after such a
    change the first weights are the best.
    """
    row = {"iteration": state.iteration, "patches": state.patches, "steps": steps, **scores}
    before = state.history[-1] if state.history else {}
    comparable = before.get("steps") == steps and before.keys() == row.keys()
    state.scores = scores
    state.history.append(row)
    merit = _merit(row, state.config.stage)
    if comparable and state.best is not None and merit <= state.best:
        return False
    state.best = merit
    return True


def _merit(row: Mapping[str, Any], stage: Stage) -> float:
    """Return the score that selects weights: PSNR, in the ``gan`` stage LPIPS, else recency."""
    if stage == "psnr":
        return float(row["psnr_y"][str(row["steps"])])
    return -float(row["lpips"]) if "lpips" in row else float(row["iteration"])


def _luma_error(sr: Tensor, hr: Tensor, weights: Tensor) -> Tensor:
    """Return the mean squared error of 8-bit luma as in `agsr.metrics.psnr_y`, a float64 scalar."""
    levels = (255 * sr.float().clamp(0, 1)).round() - (255 * hr).round()
    inside = levels[0, :, BORDER:-BORDER, BORDER:-BORDER].double()
    error: Tensor = torch.tensordot(weights, inside, dims=1).square().mean()
    return error
