"""Run a foreign network on a smooth picture, and compare its output with the picture.

Data flow: a guessed `IoSpec` → the network's output for a test picture, computed once for each
value of white → `agsr.engines.foreign.probe`, which decides whether the guess is right.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from agsr.backend import Batch
from agsr.engines.foreign.io_spec import Array, IoSpec
from agsr.errors import ModelError

Run = Callable[[IoSpec, Array], Array]
"""Runs the network on an encoded input; raises `ModelError` where it can't."""


class NoFitError(Exception):
    """A guess was wrong."""


class Trial:
    """Runs of a network on a test picture.

    Args:
        run: Runs the network.
        size: Height and width of the picture.
    """

    def __init__(self, run: Run, size: tuple[int, int]) -> None:
        self._run, self.picture = run, _picture(*size)
        self._outcomes: dict[int, Array | NoFitError] = {}

    def output(self, spec: IoSpec) -> Array:
        """Return the output as it is. The inputs of all specs may differ in `input_peak` only.

        Raises:
            NoFitError: The network fails on this input.
        """
        peak = spec.input_peak
        if peak not in self._outcomes:
            self._outcomes[peak] = self._outcome(spec)
        outcome = self._outcomes[peak]
        if isinstance(outcome, NoFitError):
            raise outcome
        return outcome

    def _outcome(self, spec: IoSpec) -> Array | NoFitError:
        try:
            result = self._run(spec, spec.encode(self.picture))
        except ModelError as error:
            return NoFitError(str(error))
        if result.ndim != 4:
            return NoFitError(f"its output is of shape {result.shape}")
        return result

    def decoded(self, spec: IoSpec) -> Batch:
        """Return the output as RGB in [0, 1].

        Raises:
            NoFitError: As for `output`.
        """
        return spec.decode(self.output(spec), self.picture)

    def difference(self, spec: IoSpec) -> float:
        """Return the mean difference between the picture and the downsampled output."""
        try:
            sr = self.decoded(spec)
        except NoFitError:
            return float("inf")
        if not np.isfinite(sr).all():
            return float("inf")
        batch, channels, height, width = self.picture.shape
        blocks = sr.reshape(batch, channels, height, spec.scale, width, spec.scale)
        return float(np.abs(blocks.mean(axis=(3, 5)) - self.picture).mean())


def _picture(height: int, width: int) -> Batch:
    """Return ``(1, 3, H, W)``: ramps in another direction, and of another mean, for each colour."""
    down: NDArray[np.float32] = np.linspace(0, 0.6, height, dtype=np.float32)[:, None]
    across: NDArray[np.float32] = np.linspace(0, 0.6, width, dtype=np.float32)[None, :]
    planes = np.broadcast_arrays(down + 0.3, across + 0.2, (down + across) / 2 + 0.1)
    return np.stack(planes)[None].astype(np.float32)
