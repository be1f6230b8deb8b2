"""What only a GPU can show: the CUDA layers alone, and every backend beside torch on the CPU.

It needs torch, numpy, onnx, onnxruntime and pytest; whatever else is missing is skipped, with the
reason.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from agsr.backend import Batch
    from agsr.engines.tensorrt.cuda import Cuda

pytestmark = pytest.mark.gpu

STEPS = 4
LEVEL = 1 / 255

CONTENDERS = [
    ("torch", {"device": "cuda"}, 0.01),
    ("torch", {"device": "cuda", "precision": "fp16"}, 1.5),
    ("torch", {"device": "cuda", "precision": "bf16"}, 8.0),
    ("ort", {"provider": "cuda"}, 0.01),
    ("ort", {"provider": "tensorrt-rtx"}, 0.1),
    ("trt", {"precision": "fp32"}, 0.05),
    ("trt", {"precision": "fp16"}, 1.0),
]
"""Backend, options, and 8-bit levels that its result may be off."""

LAYERS = {"cuda.bindings": "BindingsCuda", "pycuda": "PyCuda"}
"""CUDA layers by their module, with their classes."""


@pytest.fixture(scope="module", autouse=True)
def gpu() -> str:
    """Name of the GPU."""
    if shutil.which("nvidia-smi") is None:
        pytest.skip("no NVIDIA GPU here")
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()


def _require_layer(name: str) -> None:
    if not (find_spec(name.partition(".")[0]) and find_spec(name)):
        pytest.skip(f"{name} is not installed")


def _layer(name: str) -> Cuda:
    from agsr.engines.tensorrt import cuda_layers

    _require_layer(name)
    layer: Cuda = getattr(cuda_layers, LAYERS[name])()
    return layer


@pytest.fixture(params=LAYERS)
def cuda(request: pytest.FixtureRequest) -> Iterator[Cuda]:
    """A layer whose GPU is current."""
    layer = _layer(request.param)
    layer.activate()
    try:
        yield layer
    finally:
        layer.deactivate()


@pytest.fixture
def values() -> Any:
    return np.random.default_rng(0).random(100_003, dtype=np.float32)


def test_the_layer_describes_the_gpu(cuda: Cuda, gpu: str) -> None:
    assert cuda.gpu.partition(" MIG")[0] in gpu
    assert all(part.isdecimal() for part in (*cuda.capability.split("."), *cuda.driver.split(".")))


def test_values_come_back_from_the_device(cuda: Cuda, values: Any) -> None:
    source, target = cuda.allocate_pinned(values.size), cuda.allocate_pinned(values.size)
    address, stream = cuda.allocate(values.nbytes), cuda.create_stream()
    source[:], target[:] = values, 0
    cuda.copy_to_device(address, source, stream)
    cuda.copy_to_host(target, address, stream)
    cuda.synchronize_stream(stream)
    np.testing.assert_array_equal(target, values)
    cuda.free(address)
    cuda.destroy_stream(stream)
    for array in (source, target):
        cuda.free_pinned(array)


def test_an_event_holds_another_stream_back(cuda: Cuda, values: Any) -> None:
    source, target = cuda.allocate_pinned(values.size), cuda.allocate_pinned(values.size)
    address, streams = cuda.allocate(values.nbytes), (cuda.create_stream(), cuda.create_stream())
    copied_in, copied_out = cuda.create_event(), cuda.create_event()
    for turn in range(20):
        source[:], target[:] = values + np.float32(turn), 0
        cuda.copy_to_device(address, source, streams[0])
        cuda.record_event(copied_in, streams[0])
        cuda.wait_event(streams[1], copied_in)
        cuda.copy_to_host(target, address, streams[1])
        cuda.record_event(copied_out, streams[1])
        cuda.synchronize_event(copied_out)
        np.testing.assert_array_equal(target, values + np.float32(turn))
    for event in (copied_in, copied_out):
        cuda.destroy_event(event)
    for stream in streams:
        cuda.synchronize_stream(stream)
        cuda.destroy_stream(stream)
    cuda.free(address)
    for array in (source, target):
        cuda.free_pinned(array)


def test_a_captured_copy_runs_only_when_it_is_replayed(values: Any) -> None:
    cuda = _layer("cuda.bindings")
    cuda.activate()
    assert cuda.graphs is not None
    source, target = cuda.allocate_pinned(values.size), cuda.allocate_pinned(values.size)
    address, stream = cuda.allocate(values.nbytes), cuda.create_stream()
    source[:], target[:] = values, 0

    def work() -> None:
        cuda.copy_to_device(address, source, stream)
        cuda.copy_to_host(target, address, stream)

    graph = cuda.graphs.capture(stream, work)
    cuda.synchronize_stream(stream)
    assert not target.any()
    for turn in range(3):
        source[:] = values * np.float32(turn + 1)
        cuda.graphs.launch(graph, stream)
        cuda.synchronize_stream(stream)
        np.testing.assert_array_equal(target, values * np.float32(turn + 1))
    cuda.graphs.destroy(graph)
    cuda.free(address)
    cuda.destroy_stream(stream)
    for array in (source, target):
        cuda.free_pinned(array)
    cuda.deactivate()


def test_free_memory_falls_by_what_is_allocated(cuda: Cuda) -> None:
    size = 1 << 28
    before = cuda.free_memory()
    address = cuda.allocate(size)
    assert before - cuda.free_memory() >= size // 2  # others may give memory back meanwhile
    cuda.free(address)
    with pytest.raises(MemoryError):
        cuda.allocate(1 << 50)
    cuda.free(cuda.allocate(size))  # a failed allocation spoils nothing


@pytest.mark.parametrize("name", LAYERS)
def test_what_was_current_is_current_again_and_torch_goes_on(name: str) -> None:
    _require_layer(name)
    torch = pytest.importorskip("torch")
    driver = pytest.importorskip("cuda.bindings.driver")

    def current() -> tuple[int, int]:
        error, context = driver.cuCtxGetCurrent()
        assert error == driver.CUresult.CUDA_SUCCESS
        return int(context), torch.cuda.current_device()

    ones = torch.ones(100, device="cuda")
    before = current()
    layer = _layer(name)
    for _ in range(2):
        layer.activate()
        layer.free(layer.allocate(1000))
        layer.deactivate()
    assert current() == before
    assert float(ones.sum()) == 100


def test_torch_and_the_layer_share_a_context(cuda: Cuda, values: Any) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.zeros(values.size, device="cuda")
    torch.cuda.synchronize()
    source, stream = cuda.allocate_pinned(values.size), cuda.create_stream()
    source[:] = values
    cuda.copy_to_device(tensor.data_ptr(), source, stream)
    cuda.synchronize_stream(stream)
    np.testing.assert_array_equal(tensor.cpu().numpy(), values)
    cuda.destroy_stream(stream)
    cuda.free_pinned(source)


def test_a_gpu_that_is_not_there_is_named() -> None:
    from agsr.engines.tensorrt.cuda import open_cuda
    from agsr.errors import BackendError, MissingDependencyError

    try:
        with pytest.raises(BackendError, match=r"no GPU cuda:99 here; known: cuda:0"):
            open_cuda(99)
    except MissingDependencyError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def batches() -> list[Batch]:
    """Real pixels of several shapes, one of them twice, so that it is run from a CUDA graph."""
    from agsr.export.verify import sample_batch

    return [sample_batch(1, *size) for size in ((128, 128), (67, 93), (128, 128), (1, 1))]


@pytest.fixture(scope="module")
def expected(gpu: str, batches: list[Batch]) -> list[Batch]:  # noqa: ARG001  # no GPU, no work
    from agsr.engines.open import open_backend

    with open_backend("torch", steps=STEPS) as reference:
        return [reference.upscale(lr) for lr in batches]


@pytest.mark.parametrize(("name", "options", "levels"), CONTENDERS)
def test_pixels_equal_those_of_torch_on_the_cpu(
    name: str,
    options: dict[str, str],
    levels: float,
    batches: list[Batch],
    expected: list[Batch],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from agsr.engines.open import open_backend
    from agsr.engines.runtimes.providers import available_providers
    from agsr.errors import MissingDependencyError

    monkeypatch.setenv("AGSR_CACHE", str(tmp_path))
    provider = options.get("provider")
    if provider and provider not in available_providers():
        pytest.skip(f"this ONNX Runtime has no provider {provider}")
    try:
        backend = open_backend(name, steps=STEPS, **options)  # type: ignore[arg-type]
    except MissingDependencyError as error:
        pytest.skip(str(error))
    with backend:
        for round_ in range(2):
            for lr, sr, found in zip(batches, expected, backend.upscale_many(batches), strict=True):
                worst = np.abs(found - sr).max()
                assert worst <= levels * LEVEL, (round_, lr.shape, worst / LEVEL)
        run: Callable[[], object] = backend.bound_call(batches[0])
        run()
        again = backend.upscale(batches[0])
        assert np.abs(again - expected[0]).max() <= levels * LEVEL
