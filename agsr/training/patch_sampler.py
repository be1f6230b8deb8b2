"""Batches of training patches: `PatchBank` for bicubic LR images, else `DegradingPatchBank`.

A batch is determined by (seed, iteration), on any device and with any number of ranks.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agsr.contract import CHANNELS, SCALE
from agsr.datasets.degradation import Degradation, degrade
from agsr.datasets.pairs import Image8, Pair
from agsr.system.cpu import thread_count
from agsr.training.distributed import World

SYMMETRIES = 8
"""Number of rotations and reflections of a square."""

DEGRADED_MARGIN = 8
"""Extra LR pixels of a degraded patch before it is cropped, so that patches are not aligned with
JPEG blocks."""


@dataclass(frozen=True)
class _Cuts:
    """Positions of a batch's patches; arrays with one element per patch."""

    image: NDArray[np.int64]
    """Index of the pair."""
    y: NDArray[np.int64]
    """Upper left corner in LR pixels."""
    x: NDArray[np.int64]
    symmetry: NDArray[np.int64]
    """Bits: 1 transposed, 2 flipped vertically, 4 flipped horizontally."""


class _Draw:
    """Draws patches: an image with probability proportional to its detail, a corner, a symmetry."""

    def __init__(self, pairs: Sequence[Pair], seed: int) -> None:
        self._seed = seed
        self.sizes = np.array([pair.lr.shape[:2] for pair in pairs], dtype=np.int64)
        chances = np.array([detail(pair.lr) for pair in pairs])
        self._cumulative = np.cumsum(chances / chances.sum())

    def cuts(self, iteration: int, size: int, side: int) -> _Cuts:
        """Draw ``size`` patches of ``side`` LR pixels; no image may be smaller."""
        if self.sizes.min() < side:
            raise ValueError(
                f"the smallest image has {self.sizes.min()} LR pixels a side; expected {side}"
            )
        chance = self.stream(iteration).random((size, 4))
        image = np.searchsorted(self._cumulative, chance[:, 0], side="right")
        image = image.clip(max=len(self.sizes) - 1)
        height, width = self.sizes[image].T
        return _Cuts(
            image=image,
            y=(chance[:, 1] * (height - side + 1)).astype(np.int64),
            x=(chance[:, 2] * (width - side + 1)).astype(np.int64),
            symmetry=(chance[:, 3] * SYMMETRIES).astype(np.int64),
        )

    def stream(self, iteration: int, part: int = 0) -> np.random.Generator:
        """Return the random generator of an iteration; ``part`` selects one of many streams."""
        # In the counter's top words: consecutive values of the lowest word would overlap.
        return np.random.Generator(
            np.random.Philox(key=self._seed, counter=[0, 0, part, iteration])
        )


class PatchBank:
    """Aligned, augmented LR/HR patches from images in the training device's memory.

    All images are stored on the device as uint8, including LR images, which were downscaled once as
    a whole by the field's bicubic. A batch is a gather by computed indices: only a few integers per
    patch are sent to the device, without synchronization.

    Args:
        pairs: Source images, drawn with probability proportional to their detail.
        seed: Seed of the whole run.
        world: The ranks that share a batch; each gets its share.
    """

    def __init__(self, pairs: Sequence[Pair], seed: int, world: World) -> None:
        self._draw = _Draw(pairs, seed)
        self._world = world
        area = self._draw.sizes.prod(axis=1)
        self._starts = np.concatenate([[0], area.cumsum()[:-1]])
        self._lr = _flat([pair.lr for pair in pairs], world.device)
        self._hr = _flat([pair.hr for pair in pairs], world.device)

    def batch(self, iteration: int, size: int, crop: int) -> tuple[Tensor, Tensor]:
        """Return the patches of one iteration.

        Args:
            iteration: Index of the iteration; with the seed it determines the batch.
            size: Number of patches over all ranks, a multiple of their number.
            crop: Side of an LR patch in pixels.

        Returns:
            This rank's LR ``(size / ranks, 3, crop, crop)`` and HR ``(size / ranks, 3, 4 crop,
            4 crop)``, RGB float32 in [0, 1], channels last in memory.
        """
        staged = self.stage(iteration, size, crop)
        return self.cut([part.to(self._world.device) for part in staged], crop)

    def stage(self, iteration: int, size: int, crop: int) -> list[Tensor]:
        """Return the host data of an iteration, in pinned memory if the device is a GPU."""
        cuts = self._draw.cuts(iteration, size, crop)
        width = self._draw.sizes[cuts.image, 1]
        rows = np.stack([self._starts[cuts.image], cuts.y, cuts.x, width, cuts.symmetry], axis=1)
        return [_pinned(torch.from_numpy(_share(rows, self._world).copy()), self._world)]

    def cut(self, staged: Sequence[Tensor], crop: int) -> tuple[Tensor, Tensor]:
        """Return the patches of `batch` from the data of `stage`, now on the device."""
        start, y, x, width, symmetry = staged[0].unbind(1)
        lr = _gather(self._lr, start + y * width + x, width, symmetry, crop)
        hr_start = SCALE**2 * start + SCALE * y * SCALE * width + SCALE * x
        return lr, _gather(self._hr, hr_start, SCALE * width, symmetry, SCALE * crop)


class _BatchKey(NamedTuple):
    """Arguments of ``batch``."""

    iteration: int
    size: int
    crop: int


class DegradingPatchBank:
    """Patches like those of `PatchBank`, with LR sides by `agsr.datasets.degradation`.

    Threads make them from images in host memory. Each request also starts the next batch, so that
    it is ready when a fast device needs it.

    Args:
        pairs: Source images; see `smallest_side`.
        seed: Seed of the whole run.
        world: The ranks that share a batch; each gets its share.
    """

    def __init__(self, pairs: Sequence[Pair], seed: int, world: World) -> None:
        self._draw = _Draw(pairs, seed)
        self._images = [pair.hr for pair in pairs]
        self._world = world
        self._threads = ThreadPoolExecutor(_threads())
        self._prefetched: tuple[_BatchKey, list[Future[Pair]]] | None = None

    def batch(self, iteration: int, size: int, crop: int) -> tuple[Tensor, Tensor]:
        """Return the patches of one iteration; see `PatchBank.batch`."""
        staged = self.stage(iteration, size, crop)
        return self.cut([part.to(self._world.device) for part in staged], crop)

    def stage(self, iteration: int, size: int, crop: int) -> list[Tensor]:
        """Return the LR and HR patches, uint8; see `PatchBank.stage`."""
        key = _BatchKey(iteration, size, crop)
        next_key = key._replace(iteration=iteration + 1)
        futures = self._take_prefetched(key)
        self._prefetched = next_key, self._submit(next_key)
        patches = [future.result() for future in futures]
        stacked = (
            np.stack(images) for images in zip(*[(p.lr, p.hr) for p in patches], strict=True)
        )
        return [_pinned(torch.from_numpy(images), self._world) for images in stacked]

    def cut(self, staged: Sequence[Tensor], crop: int) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """See `PatchBank.cut`."""
        lr, hr = (part.permute(0, 3, 1, 2).float() / 255 for part in staged)
        return lr, hr

    def _take_prefetched(self, key: _BatchKey) -> list[Future[Pair]]:
        """Return the prefetched batch if it is the requested one; otherwise start that one."""
        prefetched, self._prefetched = self._prefetched, None
        if prefetched is not None and prefetched[0] == key:
            return prefetched[1]
        for stale in prefetched[1] if prefetched else ():
            stale.cancel()
        return self._submit(key)

    def _submit(self, key: _BatchKey) -> list[Future[Pair]]:
        iteration, size, crop = key
        cuts = self._draw.cuts(iteration, size, crop + DEGRADED_MARGIN)
        rows = np.stack([np.arange(size), cuts.image, cuts.y, cuts.x, cuts.symmetry], axis=1)
        return [
            self._threads.submit(self._patch, iteration, crop, *map(int, row))
            for row in _share(rows, self._world)
        ]

    def _patch(
        self, iteration: int, crop: int, index: int, image: int, y: int, x: int, symmetry: int
    ) -> Pair:
        random = self._draw.stream(iteration, 1 + index)
        side = SCALE * (crop + DEGRADED_MARGIN)
        hr = self._images[image][SCALE * y :, SCALE * x :][:side, :side]
        hr = np.ascontiguousarray(_transformed(hr, symmetry))
        lr = degrade(hr, random)
        y, x = random.integers(DEGRADED_MARGIN + 1, size=2)
        hr = hr[SCALE * y :, SCALE * x :][: SCALE * crop, : SCALE * crop]
        return Pair(hr=hr, lr=lr[y : y + crop, x : x + crop])


def make_bank(
    degradation: Degradation, pairs: Sequence[Pair], seed: int, world: World
) -> PatchBank | DegradingPatchBank:
    """Make the patch bank for a degradation."""
    kind = PatchBank if degradation == "bicubic" else DegradingPatchBank
    return kind(pairs, seed, world)


def smallest_side(degradation: Degradation, crop: int) -> int:
    """Return the shortest side, in HR pixels, of an image for patches of ``crop`` LR pixels.

    >>> smallest_side("bicubic", 32)
    128
    """
    return SCALE * (crop if degradation == "bicubic" else crop + DEGRADED_MARGIN)


def detail(image: Image8) -> float:
    """Measure how much can be learnt from an image, by its size and texture.

    This is the sum of absolute differences between neighbouring pixels, at least a hundredth of a
    level per pixel, so that no image is excluded. Skies and walls teach next to nothing.

    Args:
        image: ``(H, W, 3)``.
    """
    levels = image.astype(np.int16)
    differences = sum(float(np.abs(np.diff(levels, axis=axis)).sum()) for axis in (0, 1))
    return max(differences / CHANNELS, image[..., 0].size / 100)


def _threads() -> int:
    """Return this rank's share of the machine's cores."""
    return max(1, thread_count(None) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _pinned(values: Tensor, world: World) -> Tensor:
    """Pin memory for asynchronous copies if the device is a GPU."""
    return values.pin_memory() if world.device.type == "cuda" else values


def _share(rows: NDArray[np.int64], world: World) -> NDArray[np.int64]:
    """Return this rank's rows of a batch."""
    return rows[world.rank :: world.size]


def _transformed(image: Image8, symmetry: int) -> Image8:
    """Transform a square image ``(S, S, 3)`` by the bits of `_Cuts.symmetry`."""
    if symmetry & 2:
        image = image[::-1]
    if symmetry & 4:
        image = image[:, ::-1]
    return image.swapaxes(0, 1) if symmetry & 1 else image


def _flat(images: Sequence[NDArray[np.uint8]], device: torch.device) -> Tensor:
    """Concatenate the pixels of all images to ``(pixels, 3)`` uint8."""
    total = sum(image.shape[0] * image.shape[1] for image in images)
    pixels = torch.empty(total, CHANNELS, dtype=torch.uint8, device=device)
    start = 0
    for image in images:
        flat = torch.from_numpy(np.ascontiguousarray(image).reshape(-1, CHANNELS))
        pixels[start : start + len(flat)] = flat
        start += len(flat)
    return pixels


def _gather(pixels: Tensor, start: Tensor, width: Tensor, symmetry: Tensor, side: int) -> Tensor:
    """Gather square patches by their first pixel's index, as float32 ``(B, 3, side, side)``."""
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
