"""Runs with a time budget, on a simulated clock."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import PHOTO, TINY

import agsr.training.pace
from agsr.datasets.pairs import Pair, load_pairs
from agsr.training.config import TrainConfig
from agsr.training.distributed import World
from agsr.training.pace import Pace
from agsr.training.schedule import Schedule
from agsr.training.state import TrainingState, read_state
from agsr.training.trainer import Trainer

ALONE = World(torch.device("cpu"))
TIMED = TrainConfig(
    network=TINY, schedule="1x10@8/4,4x10@8/4", budget=1.0, warmup=0, final_rate=0.0, bf16=False
)


class Time:
    """A clock that advances with each reading, and by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.step = 0.0

    def monotonic(self) -> float:
        self.now += self.step
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    clock = Time()
    monkeypatch.setattr(agsr.training.pace, "time", clock)
    return clock


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    return load_pairs([PHOTO.parent], min_side=64)


def test_phases_divide_a_run_by_their_cost() -> None:
    schedule = Schedule.parse("1x10,4x10")
    steps = [schedule.phase_at(share).steps for share in (0.0, 0.19, 0.21, 0.99, 1.0)]
    assert steps == [1, 1, 4, 4, 4]


def test_progress_is_the_share_of_time(time: Time) -> None:
    state = TrainingState(TIMED, "")
    pace = Pace(state, ALONE)
    seen = []
    for second in (0, 6, 30, 60):
        time.now = 1000.0 + second
        pace.update()
        seen.append((state.progress, pace.phase.steps, pace.rate / TIMED.peak_rate, pace.finished))
    assert [progress for progress, *_ in seen] == pytest.approx([0, 0.1, 0.5, 1])
    assert [steps for _, steps, *_ in seen] == [1, 1, 4, 4]
    assert [rate for *_, rate, _ in seen] == pytest.approx([1, 0.9755, 0.5, 0], abs=1e-3)
    assert [finished for *_, finished in seen] == [False, False, False, True]


def test_a_resumed_run_continues_at_its_share_and_ends_in_the_remaining_time(time: Time) -> None:
    state = TrainingState(TIMED, "", progress=0.4)
    pace = Pace(state, ALONE)
    time.now += 18  # half of the 36 seconds left
    pace.update()
    assert state.progress == pytest.approx(0.7)
    pace.start(10.0)  # another budget for the rest
    time.now += 5
    pace.update()
    assert state.progress == pytest.approx(0.85)


def test_validation_comes_once_a_minute(time: Time) -> None:
    state = TrainingState(TIMED.changed({"budget": 10.0}), "", iteration=1)
    pace = Pace(state, ALONE)
    time.now += 59
    assert not pace.validation_is_due()
    time.now += 2
    assert pace.validation_is_due()
    pace.note_validation()
    assert not pace.validation_is_due()


def test_several_ranks_use_the_clock_of_the_first(time: Time) -> None:
    class Second(World):
        def agree_on(self, number: float) -> float:  # noqa: ARG002
            return 0.25

    state = TrainingState(TIMED, "", iteration=20)
    pace = Pace(state, Second(torch.device("cpu"), 1, 2))
    time.now += 59
    pace.update()
    assert state.progress == 0.25
    state.iteration, state.progress = 21, 0.3
    pace.update()
    assert state.progress == 0.3  # between meetings, all ranks have the same


def test_a_run_ends_with_its_time_whatever_its_iterations(
    tmp_path: Path, pairs: list[Pair], time: Time
) -> None:
    time.step = 0.5  # seconds that a look at the clock takes
    trainer = Trainer(TIMED, pairs, pairs, tmp_path)
    reports = list(trainer.run(budget_seconds=60.0))
    last = reports[-1]
    assert (last.iterations, last.progress, last.steps) == (None, 1.0, 4)
    assert last.rate < 0.02 * TIMED.peak_rate
    assert 40 < trainer.state.iteration < 130
    state = read_state(tmp_path)[0]
    assert state.progress == 1.0
    assert state.patches == 4 * state.iteration
    assert state.history[0]["iteration"] == 0  # what it began with can be the best
    assert state.history[-1]["iteration"] == state.iteration


def test_a_run_whose_time_passed_before_its_start_can_be_resumed(
    tmp_path: Path, pairs: list[Pair]
) -> None:
    trainer = Trainer(TIMED, pairs, pairs, tmp_path)
    assert list(trainer.run(budget_seconds=0.0)) == []
    state = read_state(tmp_path)[0]
    assert (state.iteration, state.progress) == (0, 0.0)
