"""Schedule of a training run: progressive unrolling, and the learning rate.

One step costs a fraction of four and learns most of what four need, so a run starts with one step
and unrolls later. The learning rate follows the share of the run's *cost* (iterations x steps x
patch area), not of its iterations, so that the expensive late phases get a useful rate, too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agsr.errors import ConfigurationError

if TYPE_CHECKING:
    from agsr.model.base import Network
    from agsr.training.distributed import World

_PHASE = re.compile(r"(?P<steps>\d+)x(?P<iterations>\d+)(@(?P<crop>\d+))?(/(?P<batch>\d+))?")


@dataclass(frozen=True)
class Phase:
    """Consecutive iterations with the same step count and patch size.

    >>> str(Phase(steps=4, iterations=1000, crop=48, batch=8))
    '4x1000@48/8'
    """

    steps: int
    """Unrolled steps."""
    iterations: int
    """Number of iterations."""
    crop: int = 32
    """Side of an LR patch, pixels."""
    batch: int = 16
    """Patches per iteration."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name} is {value}; expected 1 or more")

    @property
    def cost(self) -> int:
        """Relative cost of one iteration: LR pixels times steps."""
        return self.steps * self.batch * self.crop**2

    def __str__(self) -> str:
        return f"{self.steps}x{self.iterations}@{self.crop}/{self.batch}"


@dataclass(frozen=True)
class Schedule:
    """A sequence of phases.

    >>> schedule = Schedule.parse("1x200@32/16,4x100@32/16")
    >>> schedule.iterations, schedule.phase(250).steps, schedule.progress(200)
    (300, 4, 0.3333333333333333)
    """

    phases: tuple[Phase, ...]

    def __post_init__(self) -> None:
        if not self.phases:
            raise ValueError("a schedule needs at least one phase")

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """Parse comma-separated ``STEPSxITERATIONS[@CROP][/BATCH]``, like ``1x200@32/16,4x50@48``.

        Raises:
            ValueError: The text has another form.
        """
        return cls(tuple(_parse_phase(part.strip()) for part in text.split(",")))

    def __str__(self) -> str:
        return ",".join(map(str, self.phases))

    @property
    def iterations(self) -> int:
        """Number of iterations of all phases."""
        return sum(phase.iterations for phase in self.phases)

    @property
    def largest_crop(self) -> int:
        """Side of the largest LR patch of any phase, pixels."""
        return max(phase.crop for phase in self.phases)

    def cost_left(self, iteration: int) -> int:
        """Return the cost after ``iteration``, in the unit of `Phase.cost`."""
        return _cost(self.phases, self.iterations) - _cost(self.phases, iteration)

    def patches(self, iteration: int) -> int:
        """Return the number of patches before ``iteration``."""
        seen = 0
        for phase in self.phases:
            done = min(iteration, phase.iterations)
            seen += done * phase.batch
            iteration -= done
        return seen

    def phase(self, iteration: int) -> Phase:
        """Return the phase of an iteration (from 0); the last one for any later iteration."""
        for phase in self.phases:
            if iteration < phase.iterations:
                return phase
            iteration -= phase.iterations
        return self.phases[-1]

    def phase_at(self, progress: float) -> Phase:
        """Return the phase at a share of the run's cost, 0 to 1."""
        left = progress * _cost(self.phases, self.iterations)
        for phase in self.phases:
            left -= phase.iterations * phase.cost
            if left < 0:
                return phase
        return self.phases[-1]

    def progress(self, iteration: int) -> float:
        """Return the share of the run's cost before ``iteration``, 0 to 1."""
        total = _cost(self.phases, self.iterations)
        return min(_cost(self.phases, iteration) / total, 1.0)


def supervised_steps(steps: int, iteration: int) -> list[int]:
    """Return the steps whose outputs iteration (from 0) supervises, ascending.

    These are the last step and one of the earlier ones, so that every step count is trained. The
    earlier steps alternate every two iterations: reconstructing the image of every step would cost
    as much as computing their features.

    >>> [supervised_steps(4, iteration) for iteration in (0, 2, 4, 6)]
    [[1, 4], [2, 4], [3, 4], [1, 4]]
    """
    if steps == 1:
        return [1]
    return [1 + iteration // 2 % (steps - 1), steps]


def learning_rate(
    progress: float, iteration: int, *, peak: float, final: float, warmup: int
) -> float:
    """Return the rate: linear warm-up over ``warmup`` iterations, then cosine decay by progress."""
    decayed = final + (peak - final) * (1 + math.cos(math.pi * progress)) / 2
    return decayed * min(1.0, (iteration + 1) / max(warmup, 1))


def _cost(phases: Sequence[Phase], iterations: int) -> int:
    cost = 0
    for phase in phases:
        done = min(iterations, phase.iterations)
        cost += done * phase.cost
        iterations -= done
    return cost


def _parse_phase(text: str) -> Phase:
    match = _PHASE.fullmatch(text)
    if not match:
        raise ValueError(
            f"{text!r} is not of the form STEPSxITERATIONS[@CROP][/BATCH], like 4x5000@48/8"
        )
    given = {name: int(value) for name, value in match.groupdict().items() if value}
    return Phase(**given)


def check_schedule(schedule: Schedule, network: type[Network], world: World) -> None:
    """Reject a schedule that a network or a number of ranks doesn't support.

    Raises:
        ConfigurationError: A phase has too many steps, or a batch can't be shared equally.
    """
    try:
        for phase in schedule.phases:
            network.check_steps(phase.steps)
    except ValueError as error:
        raise ConfigurationError(f"the schedule doesn't fit the model: {error}") from None
    for phase in schedule.phases:
        if phase.batch % world.size:
            raise ConfigurationError(
                f"{world.size} ranks can't share {phase.batch} patches equally (phase {phase}); "
                f"choose batches in --schedule that are multiples of {world.size}"
            )
