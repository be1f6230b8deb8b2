"""Perceptual distance: LPIPS v0.1 (Zhang et al. 2018) on AlexNet or VGG16 features.

The networks are rebuilt from the arrays of ``alexnet.npz`` or ``vgg16.npz``: ``conv{i}.weight``
(OIHW) and ``.bias`` of the ImageNet networks, ``lin{j}.weight`` of the LPIPS heads. AlexNet is the
field's evaluation metric (`agsr.bench.scoring`); VGG16 features are for training
(`agsr.training.objectives`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from zipfile import BadZipFile

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from agsr.errors import CheckpointError, UnknownWeightsError

__all__ = ["FeatureNet", "Lpips", "lpips_images"]

FeatureNet = Literal["alexnet", "vgg16"]

_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
_EPSILON = 1e-10


@dataclass(frozen=True)
class _Stage:
    """Convolutions with ReLU up to an extracted feature map, after optional pooling."""

    convolutions: int
    pool: int
    stride: int = 1
    padding: int = 1


_STAGES: dict[FeatureNet, tuple[_Stage, ...]] = {
    "alexnet": (_Stage(1, 0, 4, 2), _Stage(1, 3, 1, 2), _Stage(1, 3), _Stage(1, 0), _Stage(1, 0)),
    "vgg16": (_Stage(2, 0), _Stage(2, 2), _Stage(3, 2), _Stage(3, 2), _Stage(3, 2)),
}


class Lpips(nn.Module):
    """LPIPS distance of image batches; 0 for equal images, larger for less similar ones.

    >>> metric = Lpips("alexnet", Path("alexnet.npz"))  # doctest: +SKIP
    >>> metric(torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)).shape  # doctest: +SKIP
    torch.Size([2])

    Args:
        network: Feature network.
        path: The ``.npz`` file with its weights.

    Raises:
        CheckpointError: The file is missing, damaged or of another network.
    """

    def __init__(self, network: FeatureNet, path: Path) -> None:
        super().__init__()
        arrays = _load(path)
        self._stages = _STAGES[network]
        total = sum(stage.convolutions for stage in self._stages)
        try:
            self._weights = _buffers(arrays, [f"conv{i}.weight" for i in range(total)])
            self._biases = _buffers(arrays, [f"conv{i}.bias" for i in range(total)])
            self._heads = _buffers(arrays, [f"lin{j}.weight" for j in range(len(self._stages))])
        except KeyError as error:
            raise CheckpointError(
                f"{path}: not the weights of {network}; {error} is missing"
            ) from None
        self.register_buffer("_shift", torch.tensor(_SHIFT).view(1, 3, 1, 1))
        self.register_buffer("_scale", torch.tensor(_SCALE).view(1, 3, 1, 1))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the distances ``(B,)`` of two ``(B, 3, H, W)`` batches in [0, 1]."""
        distances = [
            (_unit(a).sub(_unit(b)).square() * head.view(1, -1, 1, 1)).sum(1).mean((1, 2))
            for a, b, head in zip(
                self.features(first), self.features(second), self._heads, strict=True
            )
        ]
        return torch.stack(distances).sum(0)

    def features(self, image: Tensor) -> list[Tensor]:
        """Return the five feature maps of a ``(B, 3, H, W)`` batch in [0, 1]."""
        x = (image * 2 - 1 - self.get_buffer("_shift")) / self.get_buffer("_scale")
        maps, index = [], 0
        for stage in self._stages:
            if stage.pool:
                x = F.max_pool2d(x, stage.pool, 2)
            for _ in range(stage.convolutions):
                weight, bias = self._weights[index], self._biases[index]
                x = F.relu(F.conv2d(x, weight, bias, stage.stride, stage.padding))
                index += 1
            maps.append(x)
        return maps


def lpips_images(metric: Lpips, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Compute the LPIPS distance of two uint8 images, ``(H, W, 3)`` RGB or ``(H, W)`` grey.

    >>> distance = lpips_images(Lpips("alexnet", Path("alexnet.npz")), sr, hr)  # doctest: +SKIP
    """
    with torch.inference_mode():
        return float(metric(_tensor(first), _tensor(second)))


def _tensor(image: NDArray[np.uint8]) -> Tensor:
    rgb = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    return torch.from_numpy(rgb.transpose(2, 0, 1)[None].astype(np.float32) / 255)


def _unit(features: Tensor) -> Tensor:
    """Normalize features to unit length over the channels."""
    length: Tensor = features.square().sum(1, keepdim=True).sqrt()
    return features / (length + _EPSILON)


def _load(path: Path) -> dict[str, NDArray[np.float32]]:
    if not path.is_file():
        raise UnknownWeightsError(f"{path}: no such file; LPIPS needs the weights of its network")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name].astype(np.float32) for name in arrays.files}
    except (BadZipFile, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable .npz file: {error}") from None


def _buffers(arrays: dict[str, NDArray[np.float32]], names: list[str]) -> nn.ParameterList:
    frozen = [nn.Parameter(torch.from_numpy(arrays[n]), requires_grad=False) for n in names]
    return nn.ParameterList(frozen)
