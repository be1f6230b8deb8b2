"""Position of a run in its schedule: progress, phase and learning rate, by iterations or by time.

With a time budget, the schedule's iterations only determine each phase's share of the work.
Progress is then the share of elapsed time, so the learning rate has decayed when the time is up,
however fast the device is. `agsr.training.trainer` updates it before every iteration.
"""

from __future__ import annotations

import time

from agsr.training.distributed import World
from agsr.training.schedule import Phase, Schedule, learning_rate
from agsr.training.state import TrainingState

AGREE_EVERY = 10
"""Iterations between exchanges of the time and the stop request among several ranks."""

VALIDATE_SECONDS = 60.0
"""Seconds between validations of a run with a time budget."""


class Pace:
    """Position of a run in its schedule.

    Args:
        state: State of the run; its progress is updated.
        world: The ranks that train together; all use the clock of rank 0.
    """

    def __init__(self, state: TrainingState, world: World) -> None:
        self._state, self._world = state, world
        self._schedule = Schedule.parse(state.config.schedule)
        self.timed = state.config.budget > 0
        self.start(60 * state.config.budget * (1 - state.progress))

    def start(self, seconds: float) -> None:
        """Start the clock: the rest of a run with a time budget ends after ``seconds``."""
        self._length = seconds
        self._from = self._state.progress
        self._began = self._validated = time.monotonic()

    @property
    def has_time(self) -> bool:
        """True if time is left; a run may run out of it before it is finished."""
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
        """True if there is no next iteration."""
        if self.timed:
            return self._state.progress >= 1
        return self._state.iteration >= self._schedule.iterations

    def update(self) -> None:
        """Update the progress; all ranks must call it before every iteration."""
        if not self.timed:
            self._state.progress = self._schedule.progress(self._state.iteration)
        elif self.syncs:
            passed = (time.monotonic() - self._began) / self._length
            share = self._from + (1 - self._from) * passed
            self._state.progress = self._world.agree_on(min(share, 1.0))

    @property
    def syncs(self) -> bool:
        """True if the ranks may communicate before the next iteration."""
        return self._world.size == 1 or self._state.iteration % AGREE_EVERY == 0

    def validation_is_due(self) -> bool:
        """Return True if the latest iteration should be validated."""
        if not self.timed:
            every = self._state.config.validate_every
            return self.finished or self._state.iteration % every == 0
        if not self.syncs:
            return False
        due = time.monotonic() - self._validated > VALIDATE_SECONDS
        return self._world.agree(due and not self.finished)

    def note_validation(self) -> None:
        """Restart the interval between validations."""
        self._validated = time.monotonic()

    def seconds_left(self, seconds_per_cost: float) -> float:
        """Estimate the time to the end of the run from the time per unit of cost."""
        if self.timed:
            return max(0.0, self._began + self._length - time.monotonic())
        return self._schedule.cost_left(self._state.iteration) * seconds_per_cost
