"""How far a run is, which phase that is and what rate: by iterations, or by the time that is left.

With a budget of time, the schedule's iterations only say which share of the work each phase has;
progress is the share of time that has passed, so the learning rate has decayed when time is up,
however fast the device is. `agsr.training.trainer` asks before every iteration.
"""

from __future__ import annotations

import time

from agsr.training.distributed import World
from agsr.training.schedule import Phase, Schedule, learning_rate
from agsr.training.state import RunState

AGREE_EVERY = 10
"""Iterations after which several ranks ask the first one for the time and whether to stop."""

VALIDATE_SECONDS = 60.0
"""Seconds between validations of a run with a budget of time."""


class Pace:
    """Where a run stands in its schedule.

    Args:
        state: The run; its progress is updated.
        world: The ranks that train together; they go by the clock of the first one.
    """

    def __init__(self, state: RunState, world: World) -> None:
        self._state, self._world = state, world
        self._schedule = Schedule.parse(state.config.schedule)
        self.timed = state.config.budget > 0
        self.start(60 * state.config.budget * (1 - state.progress))

    def start(self, seconds: float) -> None:
        """Begin the rest of a run with a budget, to be done in so many seconds."""
        self._length = seconds
        self._from = self._state.progress
        self._began = self._validated = time.monotonic()

    @property
    def has_time(self) -> bool:
        """Whether iterations can begin; a run whose time went by before is not finished."""
        return not self.timed or self._length > 0

    @property
    def phase(self) -> Phase:
        """Phase of the next iteration."""
        if self.timed:
            return self._schedule.phase_at(self._state.progress)
        return self._schedule.phase(self._state.iteration)

    @property
    def rate(self) -> float:
        """Learning rate of the next iteration."""
        config = self._state.config
        return learning_rate(
            self._state.progress,
            self._state.iteration,
            peak=config.peak_rate,
            final=config.final_rate,
            warmup=config.warmup,
        )

    @property
    def finished(self) -> bool:
        """Whether there is no next iteration."""
        if self.timed:
            return self._state.progress >= 1
        return self._state.iteration >= self._schedule.iterations

    def update(self) -> None:
        """Look at the clock, or count; to be called by all ranks before every iteration."""
        if not self.timed:
            self._state.progress = self._schedule.progress(self._state.iteration)
        elif self.meets:
            passed = (time.monotonic() - self._began) / self._length
            share = self._from + (1 - self._from) * passed
            self._state.progress = self._world.agree_on(min(share, 1.0))

    @property
    def meets(self) -> bool:
        """Whether ranks may talk to one another before the next iteration."""
        return self._world.size == 1 or self._state.iteration % AGREE_EVERY == 0

    def wants_validation(self) -> bool:
        """Whether the iteration just done is to be validated."""
        if not self.timed:
            every = self._state.config.validate_every
            return self.finished or self._state.iteration % every == 0
        if not self.meets:
            return False
        due = time.monotonic() - self._validated > VALIDATE_SECONDS
        return self._world.agree(due and not self.finished)

    def validated(self) -> None:
        """The time between validations begins again."""
        self._validated = time.monotonic()

    def seconds_left(self, seconds_per_cost: float) -> float:
        """Estimated time to the end, by the time that a unit of cost takes."""
        if self.timed:
            return max(0.0, self._began + self._length - time.monotonic())
        return self._schedule.cost_left(self._state.iteration) * seconds_per_cost
