"""Worker processes: whatever happens in one, the parent continues and no process remains."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from processes import children
from stubs import Stub

from agsr.backend import Batch
from agsr.bench.runner.worker import Worker
from agsr.errors import BackendError

LR: Batch = np.random.default_rng(0).random((1, 3, 5, 7), np.float32)


@pytest.fixture(scope="module")
def good() -> Iterator[Worker]:
    worker = Worker(Stub(backend="good", weights="x"))
    worker.load()
    yield worker
    worker.close()


def test_results_and_times_come_back(good: Worker) -> None:
    image = LR[0].transpose(1, 2, 0)
    sr, seconds = good.upscale(image)
    assert np.array_equal(sr, image.repeat(4, axis=0).repeat(4, axis=1))
    assert seconds > 0
    for boundary in ("host", "device"):
        assert good.prepare("small", [LR, LR], boundary) > 0
        times = good.time("small", boundary, calls=3, warm_up=1)
        assert len(times) == 3
        assert min(times) > 0


def test_requests_before_loading_or_preparing_are_reported(good: Worker) -> None:
    with pytest.raises(BackendError, match="KeyError"):
        good.time("never prepared", "host", calls=1, warm_up=0)
    with pytest.raises(BackendError, match="no matrix product for repeat"):
        good.matrix_product()
    assert good.upscale(LR[0, 0])[0].shape == (20, 28)


def test_peak_memory_is_that_of_the_worker(good: Worker) -> None:
    mine = np.ones(300 * 2**20, np.uint8)
    worker = Worker(Stub(backend="good", weights="x"))
    worker.load()
    peak, before = worker.peak_memory(), good.peak_memory()
    worker.close()
    assert peak is not None
    assert before is not None
    assert 20e6 < peak < 1.2 * before < mine.nbytes


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        (
            "killed",
            r"^the worker process was killed \(SIGKILL\), probably out of memory; use",
        ),
        ("aborts", r"^the worker process crashed \(SIGABRT\)$"),
        ("segfaults", r"^the worker process crashed \(SIGSEGV\)$"),
        ("exits", r"^the worker process exited with status 3$"),
    ],
)
def test_a_process_that_dies_is_an_error_and_leaves_nothing(
    good: Worker, backend: str, message: str
) -> None:
    before = children()
    worker = Worker(Stub(backend=backend, weights="x", good_calls=1))
    assert worker.load()[0].name == "repeat"
    worker.upscale(LR[0, 0])
    with pytest.raises(BackendError, match=message):
        worker.upscale(LR[0, 0])
    with pytest.raises(BackendError, match="the worker process"):
        worker.peak_memory()  # and again, without waiting
    worker.close()
    assert children() == before
    assert good.upscale(LR[0, 0])[0].shape == (20, 28)


def test_errors_are_one_line_and_the_process_continues() -> None:
    failing = Worker(Stub(backend="fails", weights="x"))
    failing.load()
    for _ in range(2):
        with pytest.raises(BackendError, match=r"^ValueError: a foreign library's error$"):
            failing.upscale(LR[0, 0])
    failing.close()
    absent = Worker(Stub(backend="absent", weights="x"))
    with pytest.raises(BackendError, match=r"^it is not here; get it somewhere else$"):
        absent.load()
    with pytest.raises(BackendError, match="the network is not loaded"):
        absent.upscale(LR[0, 0])
    absent.close()


def test_a_missing_answer_ends_the_process() -> None:
    before = children()
    worker = Worker(Stub(backend="hangs", weights="x"))
    worker.load()
    worker._patience = 0.2
    with pytest.raises(BackendError, match=r"^no answer within 0\.2 s"):
        worker.upscale(LR[0, 0])
    assert children() == before  # ended already, not after the minute that it would sleep
    worker.close()


def test_a_busy_process_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agsr.bench.runner.worker.GRACE", 0.1)
    before = children()
    worker = Worker(Stub(backend="hangs", weights="x"))
    worker.load()
    worker._pipe.send(("upscale", (LR[0, 0],)))  # as after Ctrl-C: nobody waits for the answer
    worker.close()
    assert children() == before
