"""What programs with threads of their own rely on: context, turns, kinds of failure, cancelling."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path

import numpy as np
import pytest
from conftest import Repeat
from PIL import Image

from agsr.backend import Batch
from agsr.engines.batch.plan import plan
from agsr.engines.batch.runner import InferOptions, process
from agsr.engines.concurrency import BackgroundWriter, ContextPool, prefetch
from agsr.engines.upscaler import Upscaler
from agsr.errors import BackendError, ImageError, ImageTooLargeError

_user = ContextVar("_user", default="nobody")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    Image.new("RGB", (20, 16), "teal").save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_context_variables_reach_every_thread() -> None:
    seen: list[str] = []
    before = _user.set("caller")
    try:
        with ContextPool(1) as pool:
            seen.append(pool.submit(_user.get).result())
        seen += prefetch((_user.get() for _ in range(1)), 1)
        with BackgroundWriter[int](lambda _: seen.append(_user.get()), 1) as write:
            write(0)
            write.finish()
    finally:
        _user.reset(before)
    assert seen == ["caller"] * 3


@pytest.mark.usefixtures("all_cpus")
def test_upscalers_that_share_a_backend_take_turns() -> None:
    class Alone(Repeat):
        inside = 0

        def _run(self, lr: Batch) -> Batch:
            self.inside += 1
            time.sleep(0.002)
            assert self.inside == 1
            self.inside -= 1
            return super()._run(lr)

    backend = Alone()
    upscalers = [Upscaler(backend=backend, tile=8, halo=0) for _ in range(4)]
    image = np.zeros((20, 20, 3), np.uint8)
    with ThreadPoolExecutor(4) as pool:
        results = pool.map(lambda upscaler: upscaler(image), upscalers)
        assert all(large.shape == (80, 80, 3) for large in results)


@pytest.mark.parametrize("after", [0, 3])
def test_progress_may_end_a_file_and_leaves_nothing(source: Path, after: int) -> None:
    class EnoughError(Exception):
        pass

    calls: list[float] = []

    def progress(share: float) -> None:
        calls.append(share)
        if after < len(calls) and share < 1:
            raise EnoughError

    jobs = plan([source], source.parent / "out")
    backend = Repeat()
    upscaler = Upscaler(backend=backend, tile=4, halo=0)
    (outcome,) = process(upscaler, jobs, InferOptions(), lambda n: progress(n.done))
    assert outcome.error is not None
    assert len(backend.shapes) == after + 1  # of 20 tiles
    assert not jobs[0].target.exists()


@pytest.mark.parametrize("good_tiles", [0, 3])
@pytest.mark.parametrize("error", [BackendError("a driver's bug"), MemoryError(), KeyError("odd")])
def test_outcomes_have_the_class_of_the_error(
    source: Path, error: Exception, good_tiles: int
) -> None:
    class Fails(Repeat):
        def _run(self, lr: Batch) -> Batch:
            if len(self.shapes) >= good_tiles:
                raise error
            return super()._run(lr)

    jobs = plan([source], source.parent / "out")
    (outcome,) = process(Upscaler(backend=Fails(), tile=8, halo=0), jobs, InferOptions())
    expected = ImageError if good_tiles and isinstance(error, KeyError) else type(error)
    assert outcome.kind is expected
    assert outcome.error


def test_results_beyond_a_limit_are_not_computed(source: Path) -> None:
    backend = Repeat()
    jobs = plan([source], source.parent / "out")
    for limit, kind in ((5119, ImageTooLargeError), (5120, None)):
        options = InferOptions(max_result_pixels=limit)
        (outcome,) = process(Upscaler(backend=backend), jobs, options)
        assert outcome.kind is kind
        assert bool(backend.shapes) == (kind is None)
