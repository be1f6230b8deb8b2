from __future__ import annotations

import pytest

from agsr.training.schedule import Phase, Schedule, learning_rate, supervised_steps


def test_text_form_round_trips_and_has_defaults() -> None:
    schedule = Schedule.parse("1x100, 4x50@48/8")
    assert schedule.phases == (Phase(1, 100, 32, 16), Phase(4, 50, 48, 8))
    assert Schedule.parse(str(schedule)) == schedule
    assert schedule.iterations == 150
    assert schedule.largest_crop == 48


@pytest.mark.parametrize("text", ["", "4", "4x", "x5", "4x5@", "4x5,", "0x5", "-1x5", "4x5/0", "a"])
def test_other_texts_are_rejected(text: str) -> None:
    with pytest.raises(ValueError, match=r"STEPSxITERATIONS|expected 1 or more"):
        Schedule.parse(text)


def test_phases_follow_one_another() -> None:
    schedule = Schedule.parse("1x3,2x2")
    assert [schedule.phase(i).steps for i in range(7)] == [1, 1, 1, 2, 2, 2, 2]


def test_progress_is_the_share_of_the_cost() -> None:
    schedule = Schedule.parse("1x10,4x10")
    assert [schedule.progress(i) for i in (0, 10, 15, 20, 99)] == [0, 0.2, 0.6, 1, 1]


def test_learning_rate_warms_up_and_decays_to_its_end() -> None:
    def rate(progress: float, iteration: int) -> float:
        return learning_rate(progress, iteration, peak=1.0, final=0.1, warmup=10)

    assert rate(0, 0) == pytest.approx(0.1)
    assert rate(0, 9) == rate(0, 100) == 1.0
    assert rate(0.5, 100) == pytest.approx(0.55)
    assert rate(1, 100) == pytest.approx(0.1)


@pytest.mark.parametrize("steps", [1, 2, 4, 5])
def test_the_last_step_is_always_supervised_and_the_others_in_turn(steps: int) -> None:
    chosen = [supervised_steps(steps, iteration) for iteration in range(4 * steps)]
    assert all(c[-1] == steps and c == sorted(set(c)) and len(c) <= 2 for c in chosen)
    earlier = [c[0] for c in chosen if len(c) > 1]
    assert set(earlier) == set(range(1, steps))
    assert set(earlier[::2]) == set(earlier[1::2]) == set(earlier)  # in odd iterations as in even
