"""Training losses (paper, eq. 10)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def stepwise_l1(sr_by_step: Sequence[Tensor], hr: Tensor) -> Tensor:
    """Mean over the steps of the L1 distance ``|I_HR - G(I_LR)|`` (eq. 10).

    Every step is supervised, so that any prefix of the unrolled loop is a working network.

    Args:
        sr_by_step: One ``(B, 3, 4H, 4W)`` output per step, as `Generator.every_step` returns them.
        hr: ``(B, 3, 4H, 4W)`` target.

    Returns:
        Scalar in units of the image range.
    """
    return sum((F.l1_loss(sr.float(), hr) for sr in sr_by_step), hr.new_zeros(())) / len(sr_by_step)
