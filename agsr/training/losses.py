"""Training losses: equations (10) to (15) of the paper, as functions.

The paper combines BEGAN's equations with a discriminator that outputs one probability;
``docs/network.md`` explains the interpretation used here. Images are ``(B, 3, H, W)`` in [0, 1].
Every loss is a scalar tensor in units of the image range unless stated otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from agsr.contract import SCALE

COLOUR_AREA = 16
"""Side of the squares whose mean colours `colour_shift` compares, HR pixels."""

PHASE_AREA = 32
"""Side of the squares whose mean phases `phase_shift` compares, HR pixels."""


def l1(sr: Tensor, hr: Tensor) -> Tensor:
    """Compute the pixel loss ``L(I) = |I_HR - G(I_LR)|`` (eq. 10), the mean over all values.

    >>> l1(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5)).item()
    0.5
    """
    return F.l1_loss(sr.float(), hr.float())


def l2(sr: Tensor, hr: Tensor) -> Tensor:
    """Compute the mean squared error, in units of the range squared; PSNR is its logarithm."""
    return F.mse_loss(sr.float(), hr.float())


def stepwise(
    distance: Callable[[Tensor, Tensor], Tensor],
    sr_by_step: Sequence[Tensor],
    hr: Tensor,
    decay: float = 1.0,
) -> Tensor:
    """Average a pixel loss over the outputs of several steps, weighted by step.

    Args:
        distance: `l1` (eq. 10) or `l2`.
        sr_by_step: ``(B, 3, 4H, 4W)`` outputs, as `Network.after_steps` returns them.
        hr: ``(B, 3, 4H, 4W)`` target.
        decay: Weight of an output relative to the next one; 1 weights all alike, less favours the
            last one.

    >>> hr = torch.zeros(1, 3, 4, 4)
    >>> round(stepwise(l1, [hr + 0.3, hr + 0.6], hr, decay=0.5).item(), 3)
    0.5
    """
    last = len(sr_by_step) - 1
    weights = [decay ** (last - step) for step in range(len(sr_by_step))]
    losses = [weight * distance(sr, hr) for weight, sr in zip(weights, sr_by_step, strict=True)]
    return torch.stack(losses).sum() / sum(weights)


def colour_shift(sr: Tensor, hr: Tensor) -> Tensor:
    """Compute the `l1` of local mean colours, over squares of `COLOUR_AREA` pixels a side.

    A small colour shift of a whole region hardly changes perceptual features but is visible.
    """
    return l1(F.avg_pool2d(sr.float(), COLOUR_AREA), F.avg_pool2d(hr.float(), COLOUR_AREA))


def phase_shift(sr: Tensor, hr: Tensor) -> Tensor:
    """Compute the mean absolute value of `phase_shifts`, over squares of `PHASE_AREA` pixels.

    Perceptual features mistake a constant pattern with the period of an LR pixel for texture, while
    people see a grid on skin, sky and walls.
    """
    return phase_shifts(sr, hr, stride=PHASE_AREA // SCALE).abs().mean()


def phase_shifts(sr: Tensor, hr: Tensor, *, stride: int) -> Tensor:
    """Compute the deviation of each of the 16 sub-pixel phases from their mean, area by area.

    A phase is one of the 4x4 HR pixels of an LR pixel. Its error is averaged over squares of
    `PHASE_AREA` HR pixels a side, or over the whole of a smaller image: texture cancels out, a grid
    remains.

    Args:
        sr: ``(B, 3, 4H, 4W)`` output.
        hr: ``(B, 3, 4H, 4W)`` target.
        stride: LR pixels from one square to the next.

    Returns:
        ``(B, 3, 16, rows, columns)``, of mean 0 over the phases.
    """
    error = F.pixel_unshuffle(sr.float() - hr.float(), SCALE)
    height, width = error.shape[-2:]
    side = PHASE_AREA // SCALE
    means = F.avg_pool2d(error, (min(side, height), min(side, width)), stride)
    phases = means.reshape(len(means), -1, SCALE**2, *means.shape[-2:])
    shifts: Tensor = phases - phases.mean(2, keepdim=True)
    return shifts


def reconstruction_error(reconstruction: Tensor, image: Tensor) -> Tensor:
    """Compute the auto-encoding discriminator's error ``L(D(x) - x)``.

    ``L_Dr`` (eq. 12) for real images, ``L_Df`` (eq. 13) for generated ones.
    """
    return F.l1_loss(reconstruction.float(), image.float())


def discriminator_loss(real: Tensor, fake: Tensor, k: Tensor) -> Tensor:
    """Compute ``L_D = L_Dr - k_t L_Df`` (eq. 11).

    Args:
        real: ``L_Dr`` (eq. 12).
        fake: ``L_Df`` (eq. 13).
        k: ``k_t``, in [0, 1].
    """
    return real - k * fake


def generator_loss(
    pixel: Tensor,
    fake: Tensor,
    perceptual: Tensor,
    *,
    adversarial_weight: float,
    perceptual_weight: float,
) -> Tensor:
    """Compute ``L_G = L1 + λ_adv L_Df + λ_p perceptual``; eq. (11) if both weights are 0.

    Args:
        pixel: `l1` (eq. 10).
        fake: ``L_Df`` (eq. 13), which carries the discriminator's gradient.
        perceptual: Distance of features, dimensionless.
        adversarial_weight: ``λ_adv``.
        perceptual_weight: ``λ_p``.
    """
    return pixel + adversarial_weight * fake + perceptual_weight * perceptual


def next_balance(k: Tensor, real: Tensor, fake: Tensor, *, gamma: float, rate: float) -> Tensor:
    """Compute ``k_{t+1} = k_t + λ_k (γ L_Dr - L_G)`` (eq. 11), clamped to [0, 1].

    ``L_G`` is interpreted as in BEGAN, as the discriminator's error on generated images; only then
    do the two terms balance at the ``γ`` of eq. (15).

    Args:
        k: ``k_t``.
        real: ``L_Dr`` (eq. 12).
        fake: ``L_Df`` (eq. 13).
        gamma: ``γ = E[L(G(z))] / E[L(x)]`` (eq. 15), the target ratio.
        rate: ``λ_k``.
    """
    return (k + rate * (gamma * real - fake)).clamp(0, 1)


def convergence(real: Tensor, fake: Tensor, *, gamma: float) -> Tensor:
    """Compute BEGAN's measure ``L_Dr + |γ L_Dr - L_Df|``, which falls as both networks improve."""
    return real + (gamma * real - fake).abs()
