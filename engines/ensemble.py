"""Test-time ensemble: a network run on all turns and mirrorings of its input, results averaged.

Networks are trained on turned and mirrored patches but learn only nearly equal functions of them;
the mean of the eight has less noise. Source: Timofte, Rothe, Van Gool, *Seven ways to improve
example-based single image super resolution*, CVPR 2016 (there called enhanced prediction).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace

import numpy as np

from agsr.backend import Backend, Batch

SYMMETRIES = 8
"""Turns and mirrorings of a rectangle's content: four turns, each as it is and mirrored."""


class Ensemble(Backend):
    """A backend that averages another one's results over all turns and mirrorings.

    It takes eight times as long. Tiles, halo and padding are those of the other backend.

    Args:
        backend: Runs the network; closed with this one.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        largest = backend.info.largest  # turned windows must fit, too
        square = None if largest is None else (min(largest), min(largest))
        self.info = replace(backend.info, ensemble=SYMMETRIES, largest=square)
        self.turn = backend.turn  # others may use the same backend
        self.bytes_per_pixel = backend.bytes_per_pixel
        self.tile_area, self.tile_align = backend.tile_area, backend.tile_align
        # Padded before it is turned; to a fixed size, which may not be square, by the other one.
        self.sizes = replace(backend.sizes, fixed=None)

    def bound_call(self, lr: Batch) -> Callable[[], object]:
        """See `agsr.backend.Backend.bound_call`: eight calls of the network."""
        calls = [self._backend.bound_call(turned(lr, number)) for number in range(SYMMETRIES)]
        return lambda: [call() for call in calls]

    def free_memory(self) -> int | None:
        """See `agsr.backend.Backend.free_memory`."""
        return self._backend.free_memory()

    def close(self) -> None:
        """Close the other backend."""
        self._backend.close()

    def _run(self, lr: Batch) -> Batch:
        (sr,) = self._run_many([lr])
        return sr

    def _run_many(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        every = (turned(lr, number) for lr in batches for number in range(SYMMETRIES))
        with closing(self._backend.upscale_many(every)) as results:
            yield from _means(results)


def _means(results: Generator[Batch, None, None]) -> Iterator[Batch]:
    """Turn back and average eight results at a time."""
    for first in results:
        total = first.astype(np.float64)
        for number in range(1, SYMMETRIES):
            total += turned_back(next(results), number)
        yield np.asarray(total / SYMMETRIES, np.float32)


def turned(batch: Batch, number: int) -> Batch:
    """Return one of the turns and mirrorings of a batch ``(B, C, H, W)``; 0 is the batch itself.

    >>> turned(np.float32([[[[1, 2]]]]), 1).tolist()
    [[[[2.0], [1.0]]]]

    Args:
        batch: Images; odd quarter turns swap H and W.
        number: 0 to 7: quarter turns counterclockwise, from 4 on mirrored before.
    """
    mirrored = batch[..., ::-1] if number >= SYMMETRIES // 2 else batch
    return np.ascontiguousarray(np.rot90(mirrored, number % 4, axes=(-2, -1)))


def turned_back(batch: Batch, number: int) -> Batch:
    """Undo `turned`.

    >>> turned_back(turned(np.float32([[[[1, 2]]]]), 5), 5).tolist()
    [[[[1.0, 2.0]]]]
    """
    upright = np.rot90(batch, -(number % 4), axes=(-2, -1))
    return upright[..., ::-1] if number >= SYMMETRIES // 2 else upright
