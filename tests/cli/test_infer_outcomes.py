"""What ``agsr infer`` does with a batch's outcomes, whatever interrupts it."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from agsr.cli import infer_report, infer_run
from agsr.cli.infer_report import report_outcomes
from agsr.cli.infer_run import run_all
from agsr.cli.output.infer import Tally
from agsr.engines.batch.outcome import InferOptions, Outcome
from agsr.engines.batch.plan import Job
from agsr.engines.pool.pool import WorkerPool
from agsr.image.ops.output_size import OutputSize

JOBS = [Job(Path(f"{name}.png"), Path(f"{name}_x4.png"), ".png") for name in "abc"]
DONE = [Outcome(job, size=(4, 4)) for job in JOBS]


def batch() -> Generator[Outcome]:
    """As of a pool or one process: what is complete is yielded when a signal comes."""
    left = list(DONE)
    try:
        while left:
            yield left.pop(0)
    except KeyboardInterrupt:
        yield from left
        raise


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("interrupted", ["a", "b", "c"])
def test_an_interrupted_report_loses_no_result(
    moment: str, interrupted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed: list[str] = []
    interrupt = {interrupted}

    def echo(path: Path) -> None:
        name = str(path)[0]
        if moment == "after":
            printed.append(name)
        if name in interrupt:
            interrupt.clear()
            raise KeyboardInterrupt
        if moment == "before":
            printed.append(name)

    monkeypatch.setattr(infer_report, "echo_path", echo)
    tally = Tally()
    with pytest.raises(KeyboardInterrupt):
        report_outcomes(lambda _: batch(), JOBS, OutputSize(), tally, quiet=True, alone=False)
    assert sorted(set(printed)) == ["a", "b", "c"]
    assert (tally.done, tally.failed) == (3, 0)


class Crew:
    """Workers that finish everything at once."""

    places = 1

    def staffed(self) -> list[Any]:
        return []

    def stop(self) -> Iterator[Any]:
        return iter(())

    def close(self) -> None:
        pass


def test_a_pool_yields_what_is_complete_when_it_is_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = WorkerPool("cpu:1")
    monkeypatch.setattr(pool, "_crew", Crew())
    monkeypatch.setattr(pool, "open", lambda: None)
    monkeypatch.setattr(pool, "step", lambda work: work.ended.extend(enumerate(DONE)))
    outcomes = pool.process(JOBS, InferOptions())
    assert next(outcomes) == DONE[0]
    assert outcomes.throw(KeyboardInterrupt()) == DONE[1]
    assert next(outcomes) == DONE[2]
    with pytest.raises(KeyboardInterrupt):
        next(outcomes)


def test_images_and_videos_are_divided_without_comparing_all_with_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Incomparable(Job):
        def __eq__(self, _: object) -> bool:
            raise AssertionError("compared")

        __hash__ = Job.__hash__

    endings = (".png", ".mp4", ".png")
    jobs = [Incomparable(Path("a"), Path(f"b{ending}"), ending) for ending in endings]
    ran: dict[str, list[Job]] = {}
    monkeypatch.setattr(
        infer_run, "_run_images", lambda _, found, *__, **___: ran.update(images=found)
    )
    monkeypatch.setattr(infer_run, "run_videos", lambda _, found, *__: ran.update(videos=found))
    upscaler: Any = None
    run_all(upscaler, jobs, InferOptions(), {}, Tally(), quiet=True, weights="")
    assert [len(ran["images"]), len(ran["videos"])] == [2, 1]
