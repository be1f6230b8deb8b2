"""Progress of a build, as TensorRT reports it: nested phases, from several threads."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest
import tensorrt_rtx

from agsr.engines.tensorrt.progress import progress_monitor


@pytest.fixture
def _impatient_threads() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_nested_phases_are_one_share_of_the_whole() -> None:
    shares: list[float] = []
    monitor = progress_monitor(tensorrt_rtx, lambda _, share: not shares.append(share))
    monitor.phase_start("all", None, 2)
    monitor.phase_start("one", "all", 4)
    monitor.phase_start("other", "all", 4)
    assert monitor.step_complete("one", 1)
    assert monitor.step_complete("other", 0)
    monitor.phase_finish("one")
    monitor.phase_finish("other")
    assert monitor.step_complete("all", 0)
    assert monitor.step_complete("unknown", 0)
    assert shares == [0.25, 0.375, 0.5, 0.5]


@pytest.mark.usefixtures("_impatient_threads")
def test_phases_come_from_several_threads() -> None:
    reporting = threading.Lock()
    failures: list[object] = []

    def report(_: str, share: float) -> bool:
        if not reporting.acquire(blocking=False):
            failures.append("two reports at a time")
            return True
        reporting.release()
        return 0 <= share <= 1 or bool(failures.append(share))

    monitor = progress_monitor(tensorrt_rtx, report)

    def build(number: int) -> None:
        try:
            for turn in range(300):
                names = [f"{number} {turn} {depth}" for depth in range(5)]
                for parent, name in zip([None, *names[:-1]], names, strict=True):
                    monitor.phase_start(name, parent, 3)
                    monitor.step_complete(name, 0)
                for name in names:
                    monitor.phase_finish(name)
        except RuntimeError as error:
            failures.append(error)

    threads = [threading.Thread(target=build, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
