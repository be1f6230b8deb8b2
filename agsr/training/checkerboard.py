"""Removes checkerboard artefacts from trained weights, in closed form.

The last convolution makes 48 channels: 16 sub-pixel phases of three colours. If a perceptual loss
lets single phases drift, flat texture shows a grid of period 4. The grid's strength is linear in
that convolution, as averaging over an area commutes with it. A least-squares fit of the convolution
alone therefore equalizes the mean error of all phases, area by area.

Data flow: a checkpoint and pairs of patches (`agsr.training.patch_sampler`) → features before the
last convolution → normal equations → the checkpoint with a corrected last convolution.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from agsr.contract import CHANNELS, SCALE
from agsr.errors import CheckpointError
from agsr.model.checkpoint import Checkpoint
from agsr.model.generator import Generator
from agsr.training.losses import PHASE_AREA, phase_shifts

STEP_WEIGHTS = {1: 1.0, 2: 1.0, 4: 2.0}
"""Weight of each step count's features in the fit; all step counts share the convolution."""

SMALLEST_PATCH = 16
"""Shortest side of a patch, LR pixels: room for a square inside the zero-padded border."""

_AREA = PHASE_AREA // SCALE
_STRIDE = 3  # neighbouring squares nearly repeat each other
_KERNEL = 3


@dataclass(frozen=True)
class _Rows:
    """Rows of the least-squares problem for one patch, float64; K inputs of the convolution."""

    mean: Tensor
    """``(N, K + 1)``: inputs averaged over a square, and 1 for the bias."""
    texture: Tensor
    """``(N, K + 1)``: deviation of an LR pixel's inputs from that average, and 0."""
    shift: Tensor
    """``(N, 48)``: phase shifts of the square."""


@torch.inference_mode()
def balance_phases(checkpoint: Checkpoint, lr: Tensor, hr: Tensor, ridge: float) -> Checkpoint:
    """Change the last convolution so that no phase of the output is brighter than the others.

    Minimizes the mean square of ``phase_shifts`` plus ``ridge`` times the mean square of the change
    of detail finer than their squares. Mean colours are unchanged.

    Args:
        checkpoint: Weights of the attentive generator.
        lr: ``(B, 3, H, W)`` in [0, 1], H and W at least `SMALLEST_PATCH`.
        hr: ``(B, 3, 4H, 4W)`` in [0, 1].
        ridge: Penalty on changed texture, above 0. Small values make edges ragged, large ones
            make texture softer.

    Returns:
        The checkpoint with changed weights, the same record and no scores.

    Raises:
        CheckpointError: The weights belong to another network.
        ValueError: The patches are too small, or ``ridge`` isn't positive.
    """
    if min(lr.shape[-2:]) < SMALLEST_PATCH:
        raise ValueError(f"patches are {tuple(lr.shape[-2:])}; expected {SMALLEST_PATCH} or more")
    if not ridge > 0:
        raise ValueError(f"ridge is {ridge}; expected more than 0")
    generator = checkpoint.build()
    if not isinstance(generator, Generator):
        raise CheckpointError(
            f"found weights of {checkpoint.model!r}, expected {Generator.name!r}: only its last "
            "convolution feeds a pixel shuffle by four"
        )
    change = _solve(generator, lr, hr, ridge).T.float()
    weights = dict(checkpoint.weights)
    weights["upsample.weight"] = weights["upsample.weight"] + change[:, :-1].view_as(
        weights["upsample.weight"]
    )
    weights["upsample.bias"] = weights["upsample.bias"] + change[:, -1]
    return dataclasses.replace(checkpoint, weights=weights, scores={})


def _solve(generator: Generator, lr: Tensor, hr: Tensor, ridge: float) -> Tensor:
    """Return the change of the convolution, ``(K + 1, 48)`` float64, bias last."""
    inputs = generator.upsample.weight[0].numel() + 1
    left = torch.zeros(inputs, inputs, dtype=torch.float64)
    right = torch.zeros(inputs, CHANNELS * SCALE**2, dtype=torch.float64)
    for one_lr, one_hr in zip(lr[:, None], hr[:, None], strict=True):
        for weight, rows in _rows(generator, one_lr, one_hr):
            left += weight * (rows.mean.T @ rows.mean / len(rows.mean))
            left += weight * ridge * (rows.texture.T @ rows.texture / len(rows.texture))
            right -= weight * (rows.mean.T @ rows.shift / len(rows.mean))
    # Not solve(): a channel that is 0 everywhere makes the matrix singular.
    change: Tensor = torch.linalg.pinv(left, hermitian=True) @ right
    return change


def _rows(generator: Generator, lr: Tensor, hr: Tensor) -> Iterator[tuple[float, _Rows]]:
    """Yield weight and rows of each step count in `STEP_WEIGHTS`, for one pair ``(1, 3, ., .)``."""
    inner = SCALE  # one LR pixel, where the convolution reads its zero padding
    for step, (features, _) in enumerate(generator.unroll(lr, max(STEP_WEIGHTS)), 1):
        if step not in STEP_WEIGHTS:
            continue
        refined = generator.refine(features)
        sr = generator.reconstruct(features, lr)
        whole = _inputs(refined)
        mean = _inputs(F.avg_pool2d(refined, _AREA, 1))  # averaging and gathering commute
        before = (_AREA - 1) // 2
        height, width = mean.shape[-2:]
        middle = whole[..., before : before + height, before : before + width]
        shifts = phase_shifts(
            sr[..., inner:-inner, inner:-inner], hr[..., inner:-inner, inner:-inner], stride=1
        )
        yield (
            STEP_WEIGHTS[step],
            _Rows(_table(mean, 1), _table(middle - mean, 0), _table(shifts.flatten(1, 2))),
        )


def _inputs(features: Tensor) -> Tensor:
    """Unfold the inputs of a 3x3 convolution: ``(1, C, H, W)`` → ``(1, 9 C, H - 2, W - 2)``."""
    height, width = features.shape[-2:]
    return F.unfold(features, _KERNEL).view(1, -1, height - _KERNEL + 1, width - _KERNEL + 1)


def _table(maps: Tensor, bias: float | None = None) -> Tensor:
    """Flatten every third pixel of maps ``(1, K, H, W)`` to rows ``(N, K)``; append ``bias``."""
    rows = maps[0, :, ::_STRIDE, ::_STRIDE].flatten(1).T.double()
    return rows if bias is None else F.pad(rows, (0, 1), value=bias)
