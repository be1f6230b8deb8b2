"""Conversion between images and tensors."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Image8 = NDArray[np.uint8]


def to_tensor(images: Image8, device: torch.device) -> Tensor:
    """Convert uint8 ``(B, H, W, 3)`` to float32 ``(B, 3, H, W)`` in [0, 1], channels last."""
    tensor = torch.from_numpy(np.ascontiguousarray(images))
    if device.type == "cuda":
        tensor = tensor.pin_memory()  # for an asynchronous copy
    return tensor.to(device, non_blocking=True).permute(0, 3, 1, 2).float() / 255


def to_image(sr: Tensor) -> Image8:
    """Convert ``(1, 3, H, W)`` in [0, 1] to uint8 ``(H, W, 3)``, clipped and rounded.

    >>> to_image(torch.full((1, 3, 1, 1), 0.5)).tolist()
    [[[128, 128, 128]]]
    """
    rounded = (sr[0].float().clamp(0, 1) * 255).round().to(torch.uint8)
    image: Image8 = rounded.permute(1, 2, 0).cpu().numpy()
    return image
