"""What fails or runs out of memory half way, on the stand-in for a GPU of `fake_gpu`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fake_gpu import FakeCuda, FakeEngine
from fake_trt import Make, Messages, batches, repeated

from agsr.engines import tiled as tiles_module
from agsr.engines.tensorrt.api import TensorRt
from agsr.engines.tensorrt.options import BuildOptions, Profile
from agsr.engines.upscaler import Upscaler
from agsr.errors import BackendError


@pytest.mark.timeout(60, method="thread")  # a lock that is waited for ignores signals
@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError])
def test_what_interrupts_an_image_leaves_the_backend_usable(
    make: Make, kind: type[BaseException]
) -> None:
    """While the traceback is alive, so is the loop over the outputs that was left."""

    def interrupt(_: float) -> None:
        raise kind

    image = np.zeros((40, 40, 3), np.uint8)
    with make() as backend:
        upscaler = Upscaler(backend=backend, tile=8, halo=1)
        with pytest.raises(kind) as caught:
            upscaler(image, interrupt)
        assert caught.value.__traceback__ is not None
        assert upscaler(image).shape == (160, 160, 3)


@pytest.mark.timeout(60, method="thread")  # a lock that is waited for ignores signals
def test_memory_of_the_host_that_runs_out_costs_a_retry_only(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert, failures = tiles_module.to_array, [MemoryError]

    def once(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return convert(*arguments)

    monkeypatch.setattr(tiles_module, "to_array", once)
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    with make(BuildOptions(profiles=(Profile((1, 8, 8), (1, 64, 64), (1, 64, 64)),))) as backend:
        large = Upscaler(backend=backend, tile=0, halo=1)(image)
        np.testing.assert_array_equal(large, image.repeat(4, axis=0).repeat(4, axis=1))
    assert not failures


@pytest.mark.parametrize(
    ("message", "kind"), [("out of memory", MemoryError), ("bad tactic", BackendError)]
)
def test_the_error_of_a_failed_execution_has_the_reason(
    make: Make,
    engine: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
    message: str,
    kind: type[Exception],
) -> None:
    engine.fails = True
    monkeypatch.setattr(TensorRt, "messages", lambda _: Messages(message))
    with make() as backend, pytest.raises(kind, match=message):
        backend.upscale(np.zeros((1, 3, 8, 8), np.float32))


def test_smaller_tiles_are_tried_when_the_gpus_memory_runs_out(
    make: Make, cuda: FakeCuda, caplog: pytest.LogCaptureFixture
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)
    options = BuildOptions(profiles=(Profile((1, 8, 8), (1, 64, 64), (1, 128, 128)),))
    with make(options) as backend:
        cuda.memory_left = 80 * 80 * 3 * 4 * 16
        large = Upscaler(backend=backend, tile=0, halo=4)(image)
    np.testing.assert_array_equal(large, image.repeat(4, axis=0).repeat(4, axis=1))
    assert "trying tiles of 50" in caplog.text


@pytest.mark.parametrize("runs", [1, 2, 3])
def test_a_submission_that_fails_half_way_leaves_nothing_under_way(
    make: Make, cuda: FakeCuda, engine: FakeEngine, runs: int
) -> None:
    """The stand-in refuses to give memory back while work is under way."""
    first, second, larger = batches((1, 8, 8), (1, 9, 9), (2, 24, 32))
    with make() as backend:
        for _ in range(runs - 1):
            list(backend.upscale_many([first, second]))
        engine.fails = True
        with pytest.raises(MemoryError, match="out of memory"):
            list(backend.upscale_many([first, larger]))
        assert not any(cuda.streams.values())
        engine.fails = False
        for lr in (larger, first, second):
            np.testing.assert_array_equal(backend.upscale(lr), repeated(lr))


def test_without_memory_for_the_engine_the_error_names_it(make: Make, cuda: FakeCuda) -> None:
    cuda.memory_left = 0
    with pytest.raises(BackendError, match=r"model\.onnx: no memory for its engine"):
        make()
    assert (cuda.depth, cuda.streams) == (0, {})


def test_without_memory_for_a_slot_the_next_smaller_one_still_runs(
    make: Make, cuda: FakeCuda
) -> None:
    small, large = batches((1, 8, 8), (2, 24, 32))
    with make() as backend:
        cuda.memory_left = small.nbytes * 16
        for _ in range(2):
            with pytest.raises(MemoryError, match="cudaErrorMemoryAllocation"):
                backend.upscale(large)
            np.testing.assert_array_equal(backend.upscale(small), repeated(small))
    assert (len(cuda.memory), cuda.pinned_arrays) == (0, 0)
