"""The TensorRT backend on the stand-in for a GPU of `fake_gpu`."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from fake_gpu import FakeCuda, FakeEngine, fake_module
from numpy.typing import NDArray

from agsr.backend import Batch
from agsr.contract import ModelMetadata
from agsr.engines import engine_file, trt_backend
from agsr.engines import upscaler as upscaler_module
from agsr.engines.engine_cache import EngineCache
from agsr.engines.select import open_backend
from agsr.engines.trt_api import Flavour, TensorRt
from agsr.engines.trt_backend import TrtBackend
from agsr.engines.trt_builder import BuildOptions, BuildReport, Profile
from agsr.engines.upscaler import Upscaler
from agsr.errors import BackendError, ModelError

METADATA = ModelMetadata(
    steps=4, precision="fp16", receptive_radius=3, config="{}", weights_hash="w", version=""
)
SMALL = BuildOptions(profiles=(Profile((1, 8, 8), (1, 16, 16), (2, 24, 32)),))


@pytest.fixture
def cuda() -> FakeCuda:
    return FakeCuda()


@pytest.fixture
def engine(cuda: FakeCuda) -> FakeEngine:
    return FakeEngine(cuda)


@pytest.fixture
def make(
    cuda: FakeCuda,
    engine: FakeEngine,
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

    monkeypatch.setattr(trt_backend, "build_engine", build)
    monkeypatch.setattr(TensorRt, "messages", lambda _: Messages())

    def make_backend(
        options: BuildOptions = SMALL, path: Path = model, flavour: Flavour = "tensorrt"
    ) -> TrtBackend:
        return TrtBackend(
            path,
            options=options,
            cache=EngineCache(tmp_path / "cache"),
            trt=TensorRt(fake_module(engine), flavour),
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
    assert cuda.depth == 0


def test_closing_gives_everything_back(make: Callable[..., TrtBackend], cuda: FakeCuda) -> None:
    assert cuda.graphs is not None
    backend = make()
    for _ in range(3):
        list(backend.upscale_many(_batches((1, 8, 8), (1, 9, 9))))
    assert cuda.graphs.graphs
    for _ in range(2):
        backend.close()
    left = (cuda.memory, cuda.streams, cuda.events, cuda.graphs.graphs)
    assert [len(things) for things in left] == [0] * 4
    assert (cuda.pinned_arrays, cuda.depth) == (0, 0)
    with pytest.raises(BackendError, match="this backend is closed"):
        backend.upscale(np.zeros((1, 3, 8, 8), np.float32))


def test_a_shape_is_replayed_from_its_third_run_in_a_slot(
    make: Callable[..., TrtBackend], cuda: FakeCuda, engine: FakeEngine
) -> None:
    assert cuda.graphs is not None
    with make() as backend:
        for launched in (0, 0, 2, 4):
            given = list(_batches((1, 12, 12), (1, 12, 12)))
            for lr, sr in zip(given, backend.upscale_many(iter(given)), strict=True):
                np.testing.assert_array_equal(sr, _repeated(lr))
            assert len(cuda.graphs.launched) == launched
        assert len(set(cuda.graphs.launched)) == 2  # one for each slot's addresses
        assert len(engine.contexts) == 3  # and a context for each, that nothing else changes
        shared = {context.scratch for context in engine.contexts}
        assert len(shared) == 1


def test_replays_of_many_shapes_stay_apart(
    make: Callable[..., TrtBackend], cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agsr.engines.trt_executor.MOST_CALLS", 5)
    assert cuda.graphs is not None
    shapes = [(1, 8, 8), (2, 24, 32), (1, 24, 32), (1, 8, 8), (1, 24, 32)]
    with make() as backend:
        for seed in range(9):
            given = [lr + np.float32(seed) for lr in _batches(*shapes)]
            for lr, sr in zip(given, backend.upscale_many(iter(given)), strict=True):
                np.testing.assert_array_equal(sr, _repeated(lr))
            assert len(cuda.graphs.graphs) <= 5
        assert cuda.graphs.launched


def test_buffers_that_grow_are_recorded_anew(
    make: Callable[..., TrtBackend], cuda: FakeCuda
) -> None:
    small, large = _batches((1, 8, 8), (2, 24, 32))
    with make() as backend:
        for lr in (small, small, small, large, small, small, small, small):
            np.testing.assert_array_equal(backend.upscale(lr), _repeated(lr))
        assert cuda.graphs is not None
        assert len(set(cuda.graphs.launched)) == 2


@pytest.mark.parametrize("reason", ["capture", "memory", "layer"])
def test_what_cannot_be_recorded_runs_plainly(
    make: Callable[..., TrtBackend], cuda: FakeCuda, engine: FakeEngine, reason: str
) -> None:
    if reason == "layer":
        cuda.graphs = None
    else:
        assert cuda.graphs is not None
        cuda.graphs.refuses = reason == "capture"
        engine.most_contexts = 1 if reason == "memory" else 1000
    with make() as backend:
        for lr in [*_batches((1, 8, 8), (1, 9, 9))] * 4:
            np.testing.assert_array_equal(backend.upscale(lr), _repeated(lr))
    assert len(engine.contexts) <= 2
    assert cuda.graphs is None or not cuda.graphs.launched


def test_tensorrt_rtx_records_its_graphs_itself(
    make: Callable[..., TrtBackend], cuda: FakeCuda, engine: FakeEngine
) -> None:
    with make(flavour="tensorrt-rtx") as backend:
        for lr in [*_batches((1, 8, 8))] * 4:
            np.testing.assert_array_equal(backend.upscale(lr), _repeated(lr))
    (how,) = engine.asked
    assert how.cuda_graph_strategy == "whole graph"
    assert cuda.graphs is not None
    assert not cuda.graphs.launched


def test_results_are_the_callers_own(make: Callable[..., TrtBackend]) -> None:
    (first, second) = _batches((1, 8, 8), (1, 8, 8))
    with make() as backend:
        kept = backend.upscale(first)
        backend.upscale(second)
        np.testing.assert_array_equal(kept, _repeated(first))
        assert kept.flags.owndata


def test_small_inputs_are_padded_into_the_profile(
    make: Callable[..., TrtBackend], engine: FakeEngine
) -> None:
    (lr,) = _batches((1, 3, 5))
    with make() as backend:
        np.testing.assert_array_equal(backend.upscale(lr), _repeated(lr))
    assert engine.shapes == [(1, 3, 8, 8)]


def test_the_profile_with_the_least_padding_is_taken(
    make: Callable[..., TrtBackend], engine: FakeEngine
) -> None:
    wide = Profile((1, 16, 64), (1, 16, 64), (1, 32, 128))
    options = BuildOptions(profiles=(wide, *SMALL.profiles))
    with make(options) as backend:
        for lr in _batches((1, 8, 8), (1, 17, 100), (1, 24, 32)):
            np.testing.assert_array_equal(backend.upscale(lr), _repeated(lr))
    assert engine.shapes == [(1, 3, 8, 8), (1, 3, 17, 100), (1, 3, 24, 32)]
    assert engine.contexts[0].active_optimization_profile == 1


def test_beyond_every_profile_the_upscaler_cuts_tiles(
    make: Callable[..., TrtBackend], engine: FakeEngine, photo: NDArray[np.uint8]
) -> None:
    with make() as backend:
        with pytest.raises(BackendError, match=r"beyond the engine's profiles .*smaller --tile"):
            backend.upscale(np.zeros((1, 3, 25, 32), np.float32))
        assert backend.info.largest == (24, 32)
        for tile in ("auto", 0, 999):
            upscaler = Upscaler(backend=backend, tile=tile, halo=4)
            expected = photo.repeat(4, axis=0).repeat(4, axis=1)
            np.testing.assert_array_equal(upscaler(photo), expected)
        assert all(h <= 24 and w <= 32 for _, _, h, w in engine.shapes)
        with pytest.raises(BackendError, match="too few for a halo of 12"):
            Upscaler(backend=backend, halo=12)(photo)


def test_an_abandoned_pipeline_is_drained(make: Callable[..., TrtBackend], cuda: FakeCuda) -> None:
    given = list(_batches((1, 8, 8), (1, 9, 9), (1, 10, 10), (1, 11, 11)))
    with make() as backend:
        next(backend.upscale_many(iter(given)))
        assert cuda.depth == 0
        np.testing.assert_array_equal(backend.upscale(given[2]), _repeated(given[2]))


@pytest.mark.timeout(60, method="thread")  # a lock that is waited for ignores signals
@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError])
def test_what_interrupts_an_image_leaves_the_backend_usable(
    make: Callable[..., TrtBackend], kind: type[BaseException]
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
    make: Callable[..., TrtBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    convert, failures = upscaler_module._from_planes, [MemoryError]

    def once(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return convert(*arguments)

    monkeypatch.setattr(upscaler_module, "_from_planes", once)
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    with make(BuildOptions(profiles=(Profile((1, 8, 8), (1, 64, 64), (1, 64, 64)),))) as backend:
        large = Upscaler(backend=backend, tile=0, halo=1)(image)
        np.testing.assert_array_equal(large, image.repeat(4, axis=0).repeat(4, axis=1))
    assert not failures


def test_a_resident_batch_is_run_without_copies_beside_others(
    make: Callable[..., TrtBackend], cuda: FakeCuda
) -> None:
    assert cuda.graphs is not None
    first, second, other = _batches((1, 8, 8), (1, 9, 9), (1, 8, 8))
    backend = make()
    runs = [backend.resident(first), backend.resident(second)]
    outputs = {address: values.copy() for address, values in cuda.memory.items()}
    for _ in range(3):
        for run in runs:
            run()
        np.testing.assert_array_equal(backend.upscale(other), _repeated(other))
    for address, values in outputs.items():  # the residents' results are those of their inputs
        np.testing.assert_array_equal(cuda.memory[address], values)
    assert len(set(cuda.graphs.launched)) == 3
    backend.close()
    assert not cuda.memory
    with pytest.raises(BackendError, match="this backend is closed"):
        runs[0]()


@pytest.mark.parametrize(
    ("message", "kind"), [("out of\n memory", MemoryError), ("bad tactic", BackendError)]
)
def test_a_failed_execution_says_why(
    make: Callable[..., TrtBackend],
    engine: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
    message: str,
    kind: type[Exception],
) -> None:
    engine.fails = True
    monkeypatch.setattr(TensorRt, "messages", lambda _: SimpleNamespace(errors=(message,)))
    with make() as backend, pytest.raises(kind, match=" ".join(message.split())):
        backend.upscale(np.zeros((1, 3, 8, 8), np.float32))


def test_smaller_tiles_are_tried_when_the_gpus_memory_runs_out(
    make: Callable[..., TrtBackend], cuda: FakeCuda, caplog: pytest.LogCaptureFixture
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
    make: Callable[..., TrtBackend], cuda: FakeCuda, engine: FakeEngine, runs: int
) -> None:
    """The stand-in refuses to give memory back while work is under way."""
    first, second, larger = _batches((1, 8, 8), (1, 9, 9), (2, 24, 32))
    with make() as backend:
        for _ in range(runs - 1):
            list(backend.upscale_many([first, second]))
        engine.fails = True
        with pytest.raises(MemoryError, match="out of memory"):
            list(backend.upscale_many([first, larger]))
        assert not any(cuda.streams.values())
        engine.fails = False
        for lr in (larger, first, second):
            np.testing.assert_array_equal(backend.upscale(lr), _repeated(lr))


def test_without_memory_for_the_engine_its_name_is_told(
    make: Callable[..., TrtBackend], cuda: FakeCuda
) -> None:
    cuda.memory_left = 0
    with pytest.raises(BackendError, match=r"model\.onnx: no memory for its engine"):
        make()
    assert (cuda.depth, cuda.streams) == (0, {})


def test_without_memory_for_a_slot_the_next_smaller_one_still_runs(
    make: Callable[..., TrtBackend], cuda: FakeCuda
) -> None:
    small, large = _batches((1, 8, 8), (2, 24, 32))
    with make() as backend:
        cuda.memory_left = small.nbytes * 16
        for _ in range(2):
            with pytest.raises(MemoryError, match="cudaErrorMemoryAllocation"):
                backend.upscale(large)
            np.testing.assert_array_equal(backend.upscale(small), _repeated(small))
    assert (len(cuda.memory), cuda.pinned_arrays) == (0, 0)


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
    code = (
        "from types import SimpleNamespace; import agsr.engines.cuda as cuda\n"
        "def absent(name): raise OSError(name)\n"
        "cuda.ctypes = SimpleNamespace(CDLL=absent)\n"  # a machine with a GPU has a driver
        "from agsr.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "infer", "--backend", "trt"]
    command += [str(ROOT / "examples" / "astronaut.png"), "-o", str(tmp_path / "x.png")]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
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
