"""What a TensorRT backend holds on the GPU is given back, whatever becomes of the backend."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import HELPERS, ROOT
from fake_gpu import FakeCuda
from fake_trt import Make, batches, repeated

from agsr.backend import Batch
from agsr.engines import upscaler as upscaler_module
from agsr.engines.tensorrt.backend import TrtBackend
from agsr.engines.upscaler import Upscaler
from agsr.errors import BackendError


def _held(cuda: FakeCuda) -> dict[str, int]:
    assert cuda.graphs is not None
    return {
        "memory": len(cuda.memory),
        "streams": len(cuda.streams),
        "events": len(cuda.events),
        "graphs": len(cuda.graphs.graphs),
        "pinned": cuda.pinned_arrays,
        "contexts": cuda.depth,
    }


SHAPES = [(1, 8, 8), (1, 9, 9)] * 2
NOTHING = dict.fromkeys(("memory", "streams", "events", "graphs", "pinned", "contexts"), 0)


def _failing(call: Callable[[], object], good: int) -> Callable[[], object]:
    left = [good]

    def fail_late() -> object:
        left[0] -= 1
        if left[0] < 0:
            raise BackendError("CUDA: cudaErrorUnknown")
        return call()

    return fail_late


@pytest.mark.parametrize(
    ("call", "good"),
    [
        ("create_stream", 0),
        ("create_stream", 1),
        ("create_stream", 2),
        ("create_event", 0),
        ("create_event", 4),
    ],
)
def test_a_backend_that_fails_to_open_leaves_nothing(
    make: Make, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, call: str, good: int
) -> None:
    monkeypatch.setattr(cuda, call, _failing(getattr(cuda, call), good))
    with pytest.raises(BackendError, match="cudaErrorUnknown"):
        make()
    assert _held(cuda) == NOTHING


def test_a_dropped_backend_releases_everything(make: Make, cuda: FakeCuda) -> None:
    backend = make()
    for _ in range(3):
        list(backend.upscale_many(batches((1, 8, 8), (1, 9, 9))))
    run = backend.bound_call(next(batches((1, 8, 8))))
    run()
    assert _held(cuda)["graphs"]
    del backend, run
    gc.collect()
    assert _held(cuda) == NOTHING


def test_a_dropped_upscaler_releases_everything(
    make: Make, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    backends: list[TrtBackend] = []

    def opened(*_: object, **__: object) -> TrtBackend:
        backends.append(make())
        return backends[-1]

    monkeypatch.setattr(upscaler_module, "open_backend", opened)
    upscaler = Upscaler()
    upscaler(np.zeros((9, 9, 3), np.uint8))
    del upscaler
    gc.collect()
    assert _held(cuda) == NOTHING
    with pytest.raises(BackendError, match="this backend is closed"):
        backends[0].upscale(next(batches((1, 8, 8))))


def test_others_have_their_own_gpu_current_between_results(make: Make, cuda: FakeCuda) -> None:
    depths: list[int] = []

    def given() -> Iterator[Batch]:
        for lr in batches(*SHAPES):
            depths.append(cuda.depth)
            yield lr

    with make() as backend:
        for lr, sr in zip(
            batches(*[(1, 8, 8), (1, 9, 9)] * 2), backend.upscale_many(given()), strict=True
        ):
            np.testing.assert_array_equal(sr, repeated(lr))
            depths.append(cuda.depth)
    assert depths == [0] * 8


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_wait_that_fails_does_not_prevent_the_release(
    make: Make, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    backend = make()
    for _ in range(3):
        list(backend.upscale_many(batches((1, 8, 8), (1, 9, 9))))
    real, calls = cuda.synchronize_stream, [0]

    def synchronize(stream: int) -> None:
        calls[0] += 1
        if calls[0] == failing:
            raise BackendError("CUDA: cudaErrorLaunchTimeout")
        real(stream)

    monkeypatch.setattr(cuda, "synchronize_stream", synchronize)
    with pytest.raises(BackendError, match="cudaErrorLaunchTimeout"):
        backend.close()
    assert _held(cuda) == NOTHING


def test_a_backend_is_closed_though_its_results_are_unread(make: Make, cuda: FakeCuda) -> None:
    with make() as backend:
        results = backend.upscale_many(batches(*SHAPES))
        next(results)
        with pytest.raises(BackendError, match="still being read; close them first"):
            backend.upscale(next(batches((1, 8, 8))))
        next(results)
    assert _held(cuda) == NOTHING
    with pytest.raises(BackendError, match="was closed before its results"):
        next(results)


def test_what_makes_the_batches_cannot_close_the_backend(make: Make, cuda: FakeCuda) -> None:
    backend = make()

    def closing() -> Iterator[Batch]:
        yield from batches((1, 8, 8))
        backend.close()

    with pytest.raises(BackendError, match="still being read; close them first"):
        list(backend.upscale_many(closing()))
    backend.close()
    assert _held(cuda) == NOTHING


@pytest.mark.parametrize("call", ["create_stream", "create_event", "activate"])
def test_a_gpu_without_memory_is_a_backend_that_cannot_be_opened(
    make: Make, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full() -> object:
        raise MemoryError("CUDA_ERROR_OUT_OF_MEMORY")

    with monkeypatch.context() as patch:
        patch.setattr(cuda, call, full)
        with pytest.raises(BackendError, match=r"no memory on the GPU .*nvidia-smi shows who"):
            make()
    assert _held(cuda) == NOTHING


LEFT_OPEN = """
import atexit, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import pytest
from fake_gpu import FakeCuda, FakeEngine
from fake_trt import batches, maker

cuda = FakeCuda()
atexit.register(lambda: print(len(cuda.memory), len(cuda.streams), cuda.depth))
backend = maker(cuda, FakeEngine(cuda), Path({folder!r}), pytest.MonkeyPatch())()
results = backend.upscale_many(batches((1, 8, 8), (1, 9, 9), (1, 8, 8), (1, 9, 9)))
next(results)
"""


def test_a_generator_that_is_left_open_does_not_disturb_the_end_of_the_process(
    tmp_path: Path,
) -> None:
    code = LEFT_OPEN.format(tests=str(HELPERS), folder=str(tmp_path))
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 0 0\n", "")
