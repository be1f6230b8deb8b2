"""Batches of training patches, cut and turned on the device that trains.

All images lie in the device's memory as uint8 (LR images too: shrunk once, whole, by the field's
bicubic). A batch is a gather by computed indices: nothing but a few integers per patch is sent to
the device, and nothing waits. The same batch comes from the same (seed, iteration) on any device
and any number of ranks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agsr.contract import CHANNELS, SCALE
from agsr.data import Image8, Pair
from agsr.distributed import World

SYMMETRIES = 8
"""Turns and mirrorings of the square."""


class PatchBank:
    """Aligned, augmented LR/HR patches from images held on a device.

    Args:
        pairs: Images to cut from; one is drawn with a chance proportional to its detail.
        seed: Seed of the whole run.
        world: The ranks that share a batch; each gets its part.
    """

    def __init__(self, pairs: Sequence[Pair], seed: int, world: World) -> None:
        self._seed = seed
        self._world = world
        self._sizes = np.array([pair.lr.shape[:2] for pair in pairs], dtype=np.int64)
        area = self._sizes.prod(axis=1)
        self._starts = np.concatenate([[0], area.cumsum()[:-1]])
        chances = np.array([detail(pair.lr) for pair in pairs])
        self._cumulative = np.cumsum(chances / chances.sum())
        self._lr = _flat([pair.lr for pair in pairs], world.device)
        self._hr = _flat([pair.hr for pair in pairs], world.device)

    def batch(self, iteration: int, size: int, crop: int) -> tuple[Tensor, Tensor]:
        """Patches for one iteration.

        Args:
            iteration: Index of the iteration; with the seed it determines the batch.
            size: Number of patches over all ranks, which must be able to share them equally.
            crop: Side of an LR patch in pixels.

        Returns:
            This rank's LR ``(size / ranks, 3, crop, crop)`` and HR ``(size / ranks, 3, 4 crop,
            4 crop)``, RGB float32 in [0, 1], channels last in memory.
        """
        plan = self._plan(iteration, size, crop)[self._world.rank :: self._world.size]
        numbers = torch.from_numpy(np.ascontiguousarray(plan))
        if self._world.device.type == "cuda":
            numbers = numbers.pin_memory()  # or the copy would wait for the device
        numbers = numbers.to(self._world.device, non_blocking=True)
        start, y, x, width, symmetry = numbers.unbind(1)
        lr = _gather(self._lr, start + y * width + x, width, symmetry, crop)
        hr_start = SCALE**2 * start + SCALE * y * SCALE * width + SCALE * x
        return lr, _gather(self._hr, hr_start, SCALE * width, symmetry, SCALE * crop)

    def _plan(self, iteration: int, size: int, crop: int) -> NDArray[np.int64]:
        """A row per patch: its image's start and width in the LR bank, corner, symmetry."""
        # In the counter's top word: consecutive values of the lowest give overlapping streams.
        stream = np.random.Philox(key=self._seed, counter=[0, 0, 0, iteration])
        chance = np.random.Generator(stream).random((size, 4))
        image = np.searchsorted(self._cumulative, chance[:, 0], side="right")
        image = image.clip(max=len(self._sizes) - 1)
        height, width = self._sizes[image].T
        y = (chance[:, 1] * (height - crop + 1)).astype(np.int64)
        x = (chance[:, 2] * (width - crop + 1)).astype(np.int64)
        symmetry = (chance[:, 3] * SYMMETRIES).astype(np.int64)
        return np.stack([self._starts[image], y, x, width, symmetry], axis=1)


def detail(image: Image8) -> float:
    """How much there is to learn from an image: its size and its texture.

    The sum of the absolute differences between neighbouring pixels, at least a hundredth of a level
    per pixel, so that no image is left out. Skies and walls teach next to nothing.

    Args:
        image: ``(H, W, 3)``.
    """
    levels = image.astype(np.int16)
    differences = sum(float(np.abs(np.diff(levels, axis=axis)).sum()) for axis in (0, 1))
    return max(differences / CHANNELS, image[..., 0].size / 100)


def _flat(images: Sequence[NDArray[np.uint8]], device: torch.device) -> Tensor:
    """All pixels of all images as ``(pixels, 3)`` uint8, image after image."""
    total = sum(image.shape[0] * image.shape[1] for image in images)
    pixels = torch.empty(total, CHANNELS, dtype=torch.uint8, device=device)
    start = 0
    for image in images:
        flat = torch.from_numpy(np.ascontiguousarray(image).reshape(-1, CHANNELS))
        pixels[start : start + len(flat)] = flat
        start += len(flat)
    return pixels


def _gather(pixels: Tensor, start: Tensor, width: Tensor, symmetry: Tensor, side: int) -> Tensor:
    """Square patches by the index of their first pixel, as float32 ``(B, 3, side, side)``."""
    line = torch.arange(side, device=pixels.device)
    first, second = line[:, None], line[None, :]
    transposed, upside_down, mirrored = ((symmetry & bit > 0)[:, None, None] for bit in (1, 2, 4))
    y = torch.where(transposed, second, first)
    x = torch.where(transposed, first, second)
    y = torch.where(upside_down, side - 1 - y, y)
    x = torch.where(mirrored, side - 1 - x, x)
    index = start[:, None, None] + y * width[:, None, None] + x
    patches = pixels.index_select(0, index.flatten()).view(*index.shape, CHANNELS)
    return patches.permute(0, 3, 1, 2).float() / 255
