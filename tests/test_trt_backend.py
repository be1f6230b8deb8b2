"""The TensorRT backend on a stand-in for the GPU that runs streams as wildly as CUDA may.

Streams are queues; nothing runs until the host waits, and then the newest work runs first, unless
an event holds it back. A missing dependency shows as a wrong picture.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from numpy.typing import NDArray

from agsr.backend import Batch
from agsr.contract import ModelMetadata
from agsr.engines import engine_file, trt_backend
from agsr.engines.engine_cache import EngineCache
from agsr.engines.select import open_backend
from agsr.engines.trt_api import TensorRt
from agsr.engines.trt_backend import TrtBackend
from agsr.engines.trt_builder import BuildOptions, BuildReport, Profile
from agsr.engines.upscaler import Upscaler
from agsr.errors import BackendError, ModelError

METADATA = ModelMetadata(
    steps=4, precision="fp16", receptive_radius=3, config="{}", weights_hash="w", version=""
)
SMALL = BuildOptions(profiles=(Profile((1, 8, 8), (1, 16, 16), (2, 24, 32)),))


class Event:
    def __init__(self) -> None:
        self.done = True


class FakeCuda:
    """Memory, and streams whose work runs late and in an awkward order."""

    name, gpu, capability, driver = "fake", "Fake GPU", "8.9", "13.0"

    def __init__(self) -> None:
        self.memory: dict[int, NDArray[np.float32]] = {}
        self.streams: list[deque[tuple[Callable[[], None], Event | None, Event | None]]] = []
        self.depth = self.most_under_way = 0

    def enter(self) -> None:
        self.depth += 1

    def leave(self) -> None:
        self.depth -= 1

    def allocate(self, size: int) -> int:
        address = 4096 * (len(self.memory) + 1) + sum(v.nbytes for v in self.memory.values())
        self.memory[address] = np.full(size // 4, np.nan, np.float32)
        return address

    def free(self, address: int) -> None:
        self.memory.pop(address)

    def pinned(self, count: int) -> NDArray[np.float32]:
        return np.full(count, np.nan, np.float32)

    def unpin(self, values: NDArray[np.float32]) -> None:
        values.fill(np.nan)

    def stream(self) -> int:
        self.streams.append(deque())
        return len(self.streams) - 1

    def handle(self, stream: int) -> int:
        return stream

    def event(self) -> Event:
        return Event()

    def push(self, stream: int, work: Callable[[], None]) -> None:
        assert self.depth, "no context is current"
        self.streams[stream].append((work, None, None))

    def copy_in(self, target: int, source: NDArray[np.float32], stream: int) -> None:
        self.push(stream, lambda: self._assign(target, source))

    def _assign(self, target: int, source: NDArray[np.float32]) -> None:
        self.memory[target][: source.size] = source

    def copy_out(self, target: NDArray[np.float32], source: int, stream: int) -> None:
        self.push(stream, lambda: np.copyto(target, self.memory[source][: target.size]))

    def record(self, event: Event, stream: int) -> None:
        event.done = False
        self.streams[stream].append((lambda: None, None, event))

    def hold(self, stream: int, event: Event) -> None:
        self.streams[stream].append((lambda: None, event, None))

    def wait(self, event: Event) -> None:
        self.most_under_way = max(self.most_under_way, len(self.streams[-1]) // 3)
        while not event.done:
            ready = [q for q in reversed(self.streams) if q and (q[0][1] is None or q[0][1].done)]
            assert ready, "the streams wait for each other"
            work, _, recorded = ready[0].popleft()
            work()
            if recorded is not None:
                recorded.done = True


class FakeContext:
    """Repeats pixels; keeps what was set, as TensorRT does, at the time of execution."""

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda, self.addresses = cuda, dict[str, int]()
        self.shape: tuple[int, ...] = ()
        self.active_optimization_profile = 0
        self.shapes: list[tuple[int, ...]] = []
        self.fails = False

    def set_optimization_profile_async(self, index: int, _stream: int) -> None:
        self.active_optimization_profile = index

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == "lr"
        self.shape = tuple(shape)
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        source, target, shape = self.addresses["lr"], self.addresses["sr"], self.shape
        self.shapes.append(shape)

        def work() -> None:
            lr = self.cuda.memory[source][: int(np.prod(shape))].reshape(shape)
            sr = lr.repeat(4, 2).repeat(4, 3).ravel()
            self.cuda.memory[target][: sr.size] = sr

        self.cuda.push(stream, work)
        return not self.fails


@pytest.fixture
def cuda() -> FakeCuda:
    return FakeCuda()


@pytest.fixture
def context(cuda: FakeCuda) -> FakeContext:
    return FakeContext(cuda)


@pytest.fixture
def make(
    cuda: FakeCuda,
    context: FakeContext,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., TrtBackend]:
    """Makes backends on the stand-in; engines are text."""
    model = tmp_path / "model.onnx"
    model.write_bytes(b"onnx")

    def build(_trt: Any, _onnx: bytes, _source: str, options: BuildOptions, _report: Any) -> Any:
        facts = BuildReport(
            metadata=METADATA, flavour="tensorrt", version="11", layers={}, size=6, options=options
        )
        return b"engine", facts

    class Messages:
        errors = ("out of\n memory",)

    def deserialize(engine: bytes) -> Any:
        assert engine == b"engine"
        return SimpleNamespace(create_execution_context=lambda: context)

    runtime = SimpleNamespace(deserialize_cuda_engine=deserialize)
    module = SimpleNamespace(__version__="11.4", Runtime=lambda _: runtime)
    monkeypatch.setattr(trt_backend, "build_engine", build)
    monkeypatch.setattr(TensorRt, "messages", lambda _: Messages())

    def make_backend(options: BuildOptions = SMALL, path: Path = model) -> TrtBackend:
        return TrtBackend(
            path,
            options=options,
            cache=EngineCache(tmp_path / "cache"),
            trt=TensorRt(module, "tensorrt"),
            cuda=cuda,
        )

    return make_backend


def _batches(*shapes: tuple[int, int, int]) -> Iterator[Batch]:
    random = np.random.default_rng(0)
    for batch, height, width in shapes:
        yield random.random((batch, 3, height, width), dtype=np.float32)


def _repeated(lr: Batch) -> Batch:
    return lr.repeat(4, axis=2).repeat(4, axis=3)


def test_many_batches_overlap_and_come_out_in_order(
    make: Callable[..., TrtBackend], cuda: FakeCuda
) -> None:
    shapes = [(1, 8, 8), (2, 24, 32), (1, 20, 9), (1, 24, 32), (2, 8, 30), (1, 8, 8), (1, 9, 9)]
    given = list(_batches(*shapes))
    with make() as backend:
        for lr, sr in zip(given, backend.upscale_many(iter(given)), strict=True):
            np.testing.assert_array_equal(sr, _repeated(lr))
        assert cuda.most_under_way == 2
        assert cuda.memory
    assert not cuda.memory
    assert cuda.depth == 0


def test_results_are_the_callers_own(make: Callable[..., TrtBackend]) -> None:
    (first, second) = _batches((1, 8, 8), (1, 8, 8))
    with make() as backend:
        kept = backend.upscale(first)
        backend.upscale(second)
        np.testing.assert_array_equal(kept, _repeated(first))
        assert kept.flags.owndata


def test_small_inputs_are_padded_into_the_profile(
    make: Callable[..., TrtBackend], context: FakeContext
) -> None:
    (lr,) = _batches((1, 3, 5))
    with make() as backend:
        np.testing.assert_array_equal(backend.upscale(lr), _repeated(lr))
    assert context.shapes == [(1, 3, 8, 8)]


def test_the_profile_with_the_least_padding_is_taken(
    make: Callable[..., TrtBackend], context: FakeContext
) -> None:
    wide = Profile((1, 16, 64), (1, 16, 64), (1, 32, 128))
    options = BuildOptions(profiles=(wide, *SMALL.profiles))
    with make(options) as backend:
        for lr in _batches((1, 8, 8), (1, 17, 100), (1, 24, 32)):
            np.testing.assert_array_equal(backend.upscale(lr), _repeated(lr))
    assert context.shapes == [(1, 3, 8, 8), (1, 3, 17, 100), (1, 3, 24, 32)]
    assert context.active_optimization_profile == 1


def test_beyond_every_profile_the_upscaler_cuts_tiles(
    make: Callable[..., TrtBackend], context: FakeContext, photo: NDArray[np.uint8]
) -> None:
    with make() as backend:
        with pytest.raises(BackendError, match=r"beyond the engine's profiles .*smaller --tile"):
            backend.upscale(np.zeros((1, 3, 25, 32), np.float32))
        assert backend.info.largest == (24, 32)
        for tile in ("auto", 0, 999):
            upscaler = Upscaler(backend=backend, tile=tile, halo=4)
            expected = photo.repeat(4, axis=0).repeat(4, axis=1)
            np.testing.assert_array_equal(upscaler(photo), expected)
        assert all(h <= 24 and w <= 32 for _, _, h, w in context.shapes)
        with pytest.raises(BackendError, match="too few for a halo of 12"):
            Upscaler(backend=backend, halo=12)(photo)


def test_an_abandoned_pipeline_is_drained(make: Callable[..., TrtBackend], cuda: FakeCuda) -> None:
    given = list(_batches((1, 8, 8), (1, 9, 9), (1, 10, 10), (1, 11, 11)))
    with make() as backend:
        next(backend.upscale_many(iter(given)))
        assert cuda.depth == 0
        np.testing.assert_array_equal(backend.upscale(given[2]), _repeated(given[2]))


def test_a_failed_execution_says_why(make: Callable[..., TrtBackend], context: FakeContext) -> None:
    context.fails = True
    with make() as backend, pytest.raises(BackendError, match="out of memory; if memory ran out"):
        backend.upscale(np.zeros((1, 3, 8, 8), np.float32))


def test_what_runs_is_told(make: Callable[..., TrtBackend]) -> None:
    with make() as backend:
        info = backend.info
    assert (info.name, info.device) == ("trt", "Fake GPU (tensorrt 11.4)")
    assert (info.precision, info.steps, info.receptive_radius) == ("fp16", 4, 3)


def test_an_engine_file_is_run_as_it_was_built(
    make: Callable[..., TrtBackend], tmp_path: Path
) -> None:
    path = tmp_path / "made.engine"
    facts = {
        "metadata": asdict(METADATA),
        "options": {"profiles": [{"smallest": [1, 8, 8], "best": [1, 8, 8], "largest": [1, 9, 9]}]},
    }
    sidecar = {
        "format": engine_file.FORMAT,
        "sha256": hashlib.sha256(b"engine").hexdigest(),
        "report": facts,
    }
    path.write_bytes(b"engine")
    with pytest.raises(ModelError, match=r"made\.engine\.json: No such file"):
        make(path=path)
    path.with_name("made.engine.json").write_text(json.dumps(sidecar))
    (lr,) = _batches((1, 9, 9))
    with make(path=path) as backend:
        np.testing.assert_array_equal(backend.upscale(lr), _repeated(lr))
        assert backend.info.largest == (9, 9)
    path.write_bytes(b"enginf")
    with pytest.raises(ModelError, match="not the engine that"):
        make(path=path)
    with pytest.raises(BackendError, match="runs on --backend trt only"):
        open_backend("ort", str(path))


def test_without_a_driver_one_line_says_so_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "agsr", "infer", "--backend", "trt"]
    command += [str(ROOT / "examples" / "astronaut.png"), "-o", str(tmp_path / "x.png")]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode == 0:  # a machine with a GPU
        return
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "no NVIDIA driver here" in done.stderr
    assert seconds < 2


def test_without_tensorrt_the_command_that_installs_it_is_named(tmp_path: Path) -> None:
    code = (
        "import importlib.util as u, sys; find = u.find_spec;"
        "u.find_spec = lambda n, p=None: None if n.startswith('tensorrt') else find(n, p);"
        "from agsr.cli import main; main()"
    )
    photo = str(ROOT / "examples" / "astronaut.png")
    command = [sys.executable, "-c", code, "infer", photo, "--backend", "trt", "-o", "x.png"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "TensorRT is not installed. For an RTX GPU: pip install 'agsr[rtx]'" in done.stderr
    assert not list(tmp_path.iterdir())


def test_options_of_other_backends_are_refused() -> None:
    with pytest.raises(BackendError, match="--threads does not belong to the backend 'trt'"):
        open_backend("trt", threads=2)
    with pytest.raises(BackendError, match=r"no precision named .fp8."):
        open_backend("trt", precision="fp8")
