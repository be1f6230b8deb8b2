"""Batches of training patches: `PatchBank` where LR images are bicubic, else `DegradingPatchBank`.

The same batch comes from the same (seed, iteration) on any device and any number of ranks.
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
"""Turns and mirrorings of the square."""


DEGRADED_MARGIN = 8
"""LR pixels by which a degraded patch is larger before it is cut: its corner is not always one of
JPEG's blocks."""


@dataclass(frozen=True)
class _Cuts:
    """Where the patches of a batch come from; arrays with an entry per patch."""

    image: NDArray[np.int64]
    """Index of the pair."""
    y: NDArray[np.int64]
    """Upper left corner in LR pixels."""
    x: NDArray[np.int64]
    symmetry: NDArray[np.int64]
    """Bits: 1 transposed, 2 upside down, 4 mirrored."""


class _Draw:
    """Draws patches: an image with a chance proportional to its detail, a corner, a symmetry."""

    def __init__(self, pairs: Sequence[Pair], seed: int) -> None:
        self._seed = seed
        self.sizes = np.array([pair.lr.shape[:2] for pair in pairs], dtype=np.int64)
        chances = np.array([detail(pair.lr) for pair in pairs])
        self._cumulative = np.cumsum(chances / chances.sum())

    def cuts(self, iteration: int, size: int, side: int) -> _Cuts:
        """``size`` patches of ``side`` LR pixels, which no image may be smaller than."""
        if self.sizes.min() < side:
            raise ValueError(f"an image has {self.sizes.min()} LR pixels a side; expected {side}")
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
        """Random numbers of an iteration; ``part`` chooses one of many streams."""
        # In the counter's top words: consecutive values of the lowest give overlapping streams.
        return np.random.Generator(
            np.random.Philox(key=self._seed, counter=[0, 0, part, iteration])
        )


class PatchBank:
    """Aligned, augmented LR/HR patches from images held on the device that trains.

    All images lie in the device's memory as uint8 (LR images too: shrunk once, whole, by the
    field's bicubic). A batch is a gather by computed indices: nothing but a few integers per patch
    is sent to the device, and nothing waits.

    Args:
        pairs: Images to cut from; one is drawn with a chance proportional to its detail.
        seed: Seed of the whole run.
        world: The ranks that share a batch; each gets its part.
    """

    def __init__(self, pairs: Sequence[Pair], seed: int, world: World) -> None:
        self._draw = _Draw(pairs, seed)
        self._world = world
        area = self._draw.sizes.prod(axis=1)
        self._starts = np.concatenate([[0], area.cumsum()[:-1]])
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
        staged = self.stage(iteration, size, crop)
        return self.cut([part.to(self._world.device) for part in staged], crop)

    def stage(self, iteration: int, size: int, crop: int) -> list[Tensor]:
        """What an iteration has to send to the device, in pinned memory if that is a GPU."""
        cuts = self._draw.cuts(iteration, size, crop)
        width = self._draw.sizes[cuts.image, 1]
        rows = np.stack([self._starts[cuts.image], cuts.y, cuts.x, width, cuts.symmetry], axis=1)
        return [_pinned(torch.from_numpy(_share(rows, self._world).copy()), self._world)]

    def cut(self, staged: Sequence[Tensor], crop: int) -> tuple[Tensor, Tensor]:
        """The patches of `batch`, by what `stage` gave, now on the device; nothing else is read."""
        start, y, x, width, symmetry = staged[0].unbind(1)
        lr = _gather(self._lr, start + y * width + x, width, symmetry, crop)
        hr_start = SCALE**2 * start + SCALE * y * SCALE * width + SCALE * x
        return lr, _gather(self._hr, hr_start, SCALE * width, symmetry, SCALE * crop)


class _Wanted(NamedTuple):
    """The arguments of ``batch``."""

    iteration: int
    size: int
    crop: int


class DegradingPatchBank:
    """Patches like `PatchBank`'s; `agsr.datasets.degradation` makes the LR side of each of them.

    Threads make them from images in the host's memory; the next batch is begun when one is asked
    for, so that they are ready when a fast device wants them.

    Args:
        pairs: Images to cut from; see `smallest_side`.
        seed: Seed of the whole run.
        world: The ranks that share a batch; each gets its part.
    """

    def __init__(self, pairs: Sequence[Pair], seed: int, world: World) -> None:
        self._draw = _Draw(pairs, seed)
        self._images = [pair.hr for pair in pairs]
        self._world = world
        self._threads = ThreadPoolExecutor(_threads())
        self._begun: tuple[_Wanted, list[Future[Pair]]] | None = None

    def batch(self, iteration: int, size: int, crop: int) -> tuple[Tensor, Tensor]:
        """Patches for one iteration, as `PatchBank.batch` gives them."""
        staged = self.stage(iteration, size, crop)
        return self.cut([part.to(self._world.device) for part in staged], crop)

    def stage(self, iteration: int, size: int, crop: int) -> list[Tensor]:
        """The LR and HR patches, uint8; see `PatchBank.stage`."""
        wanted = _Wanted(iteration, size, crop)
        following = wanted._replace(iteration=iteration + 1)
        begun = self._taken(wanted)
        self._begun = following, self._begin(following)
        patches = [future.result() for future in begun]
        stacked = (
            np.stack(images) for images in zip(*[(p.lr, p.hr) for p in patches], strict=True)
        )
        return [_pinned(torch.from_numpy(images), self._world) for images in stacked]

    def cut(self, staged: Sequence[Tensor], crop: int) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """See `PatchBank.cut`."""
        lr, hr = (part.permute(0, 3, 1, 2).float() / 255 for part in staged)
        return lr, hr

    def _taken(self, wanted: _Wanted) -> list[Future[Pair]]:
        """What was begun before, if it is what is wanted."""
        begun, self._begun = self._begun, None
        if begun is not None and begun[0] == wanted:
            return begun[1]
        for unwanted in begun[1] if begun else ():
            unwanted.cancel()
        return self._begin(wanted)

    def _begin(self, wanted: _Wanted) -> list[Future[Pair]]:
        iteration, size, crop = wanted
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
        hr = np.ascontiguousarray(_turned(hr, symmetry))
        lr = degrade(hr, random)
        y, x = random.integers(DEGRADED_MARGIN + 1, size=2)
        hr = hr[SCALE * y :, SCALE * x :][: SCALE * crop, : SCALE * crop]
        return Pair(hr=hr, lr=lr[y : y + crop, x : x + crop])


def make_bank(
    degradation: Degradation, pairs: Sequence[Pair], seed: int, world: World
) -> PatchBank | DegradingPatchBank:
    """The bank whose LR patches are made so."""
    kind = PatchBank if degradation == "bicubic" else DegradingPatchBank
    return kind(pairs, seed, world)


def smallest_side(degradation: Degradation, crop: int) -> int:
    """Shortest side in HR pixels of an image that patches of ``crop`` LR pixels are cut from."""
    return SCALE * (crop if degradation == "bicubic" else crop + DEGRADED_MARGIN)


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


def _threads() -> int:
    """This rank's share of the machine's cores."""
    return max(1, thread_count(None) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _pinned(values: Tensor, world: World) -> Tensor:
    """In memory from which a copy to the world's device waits for nothing."""
    return values.pin_memory() if world.device.type == "cuda" else values


def _share(rows: NDArray[np.int64], world: World) -> NDArray[np.int64]:
    """The rows of a batch that are this rank's."""
    return rows[world.rank :: world.size]


def _turned(image: Image8, symmetry: int) -> Image8:
    """A square image ``(S, S, 3)`` in another position, by the bits of `_Cuts.symmetry`."""
    if symmetry & 2:
        image = image[::-1]
    if symmetry & 4:
        image = image[:, ::-1]
    return image.swapaxes(0, 1) if symmetry & 1 else image


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
