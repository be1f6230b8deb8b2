from __future__ import annotations

import dataclasses
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import BF16_BY_OPENVINO, NEEDS_OPENVINO, Processor, small_baseline

from agsr.backend import Batch
from agsr.engines.open import open_backend
from agsr.engines.runtimes.onnxruntime_backend import OrtBackend
from agsr.engines.runtimes.openvino_backend import OpenVinoBackend
from agsr.engines.runtimes.openvino_session import OpenVinoSession
from agsr.engines.runtimes.providers import PROVIDERS, available_providers
from agsr.engines.runtimes.torch_backend import TorchBackend
from agsr.errors import BackendError, ModelError
from agsr.export.verify import sample_batch
from agsr.model.checkpoint import save_checkpoint
from agsr.system.cpu import ISA_VARIABLE

pytestmark = pytest.mark.processor

OPENVINO = [OpenVinoBackend] if find_spec("openvino") else []  # no wheel for every platform


@pytest.fixture
def lr() -> Batch:
    return sample_batch(2, 33, 47)


def test_backends_agree_and_say_what_they_run(
    checkpoint_file: Path, onnx_file: Callable[[int], Path], lr: Batch
) -> None:
    with TorchBackend(checkpoint_file, steps=3) as torch, OrtBackend(onnx_file(3)) as ort:
        np.testing.assert_allclose(torch.upscale(lr), ort.upscale(lr), atol=1e-5)
        assert (torch.info.name, ort.info.name) == ("torch", "ort")
        assert torch.info.weights_hash == ort.info.weights_hash
        assert torch.info.steps == ort.info.steps == 3
        assert torch.info.receptive_radius == ort.info.receptive_radius
        assert (torch.info.device, ort.info.device) == ("cpu", "CPUExecutionProvider")


def test_bf16_on_torch_is_close(checkpoint_file: Path, lr: Batch) -> None:
    exact = TorchBackend(checkpoint_file, steps=2).upscale(lr)
    rounded = TorchBackend(checkpoint_file, steps=2, precision="bf16").upscale(lr)
    assert 0 < np.abs(exact - rounded).max() < 0.05


def test_every_available_provider_has_the_same_result(onnx_file: Callable[[int], Path]) -> None:
    lr = sample_batch(1, 40, 40)
    reference = OrtBackend(onnx_file(2)).upscale(lr)
    assert "cpu" in available_providers()
    for name in available_providers():
        if name in ("cuda", "tensorrt-rtx"):  # listed wherever its package is, GPU or not
            continue
        with OrtBackend(onnx_file(2), provider=name) as backend:
            assert backend.info.device == PROVIDERS[name].ort_name
            np.testing.assert_allclose(backend.upscale(lr), reference, atol=1e-4)


@pytest.mark.parametrize(
    ("precision", "least", "largest"),
    [
        pytest.param("fp32", 0, 1e-4, marks=NEEDS_OPENVINO),
        pytest.param("bf16", 1e-4, 0.05, marks=BF16_BY_OPENVINO),
    ],
)
def test_openvino_computes_in_the_precision_it_is_asked_for(
    onnx_file: Callable[[int], Path], precision: str, least: float, largest: float
) -> None:
    lr = sample_batch(1, 40, 40)
    exact = OrtBackend(onnx_file(2))
    with OpenVinoBackend(onnx_file(2), precision=precision) as backend:
        assert backend.info.precision == precision
        assert backend.info.weights_hash == exact.info.weights_hash
        assert least <= np.abs(backend.upscale(lr) - exact.upscale(lr)).max() < largest
        assert (backend.tile_area > exact.tile_area) == (precision == "bf16")


@NEEDS_OPENVINO
def test_openvino_refuses_bf16_where_the_processor_lacks_it(
    onnx_file: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ISA_VARIABLE, "avx2")
    with pytest.raises(BackendError, match=r"in f32 .* not bf16; use --precision fp32"):
        OpenVinoBackend(onnx_file(1), precision="bf16")


@NEEDS_OPENVINO
def test_openvino_runs_shipped_fp16_weights() -> None:
    """Whose input and output have a cast beside them, and so a second name in OpenVINO."""
    lr = sample_batch(1, 24, 24)
    with (
        open_backend("openvino", steps=1, precision="fp16") as half,
        open_backend("ort", steps=1, precision="fp32") as exact,
    ):
        assert half.info.precision == "fp16"
        assert np.abs(half.upscale(lr) - exact.upscale(lr)).max() < 4e-3


@NEEDS_OPENVINO
def test_a_signal_after_openvino_went_on_another_thread_is_no_crash(
    onnx_file: Callable[[int], Path],
) -> None:
    code = (
        "import signal, sys, threading; from pathlib import Path\n"
        "from agsr.engines.runtimes.openvino_backend import OpenVinoBackend\n"
        "held = [OpenVinoBackend(Path(sys.argv[1]))]\n"
        "thread = threading.Thread(target=held.clear)\n"
        "thread.start(); thread.join()\n"
        "signal.signal(signal.SIGINT, lambda *_: print('heard'))\n"
        "signal.raise_signal(signal.SIGINT)\n"
    )
    command = [sys.executable, "-c", code, str(onnx_file(1))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr


@NEEDS_OPENVINO
def test_openvinos_results_stay_the_callers(onnx_file: Callable[[int], Path]) -> None:
    with OpenVinoBackend(onnx_file(1)) as backend:
        first = backend.upscale(sample_batch(1, 9, 8))
        kept = first.copy()
        backend.upscale(1 - sample_batch(1, 9, 8))
        np.testing.assert_array_equal(first, kept)


def test_precisions_a_backend_lacks_are_refused(
    checkpoint_file: Path, onnx_file: Callable[[int], Path]
) -> None:
    with pytest.raises(BackendError, match="'cpu' runs fp32 graphs in fp32, not in bf16"):
        OrtBackend(onnx_file(1), precision="bf16")
    with pytest.raises(BackendError, match="not in int4"):
        TorchBackend(checkpoint_file, steps=1, precision="int4")
    with pytest.raises(BackendError, match="openvino runs fp32 graphs in fp32 or bf16, not in fp1"):
        OpenVinoBackend(onnx_file(1), precision="fp16")
    with pytest.raises(BackendError, match=r"--threads is for .* on the CPU, not for 'ort:cuda'"):
        OrtBackend(onnx_file(1), provider="cuda", threads=2)


def test_a_missing_provider_is_an_error_not_a_fallback(
    onnx_file: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    only_cpu = lambda: ["CPUExecutionProvider"]  # noqa: E731  # wherever the tests run
    monkeypatch.setattr(onnxruntime, "get_available_providers", only_cpu)
    with pytest.raises(BackendError, match="'cuda' is not installed; add it with: pip install"):
        OrtBackend(onnx_file(1), provider="cuda")
    with pytest.raises(BackendError, match="no provider named 'tpu'"):
        OrtBackend(onnx_file(1), provider="tpu")


def test_the_error_of_an_unloadable_plugin_has_the_reason(
    onnx_file: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the TensorRT-RTX plugin does on a machine without NVIDIA's driver."""
    name = "onnxruntime_ep_nv_tensorrt_rtx"
    if importlib.util.find_spec(name) is None:
        with pytest.raises(BackendError, match="pip install onnxruntime-ep-nv-tensorrt-rtx"):
            OrtBackend(onnx_file(1), provider="tensorrt-rtx")
    (tmp_path / f"{name}.py").write_text("def get_library_path(): return '/gone.so'\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    assert "tensorrt-rtx" in available_providers()
    with pytest.raises(BackendError, match=rf"can't load {name}: .*gone\.so"):
        OrtBackend(onnx_file(1), provider="tensorrt-rtx")
    monkeypatch.delitem(sys.modules, name)


def test_a_precision_that_the_processor_lacks_is_refused(
    onnx_file: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO itself computes in fp32 then, and says nothing."""
    kind = SimpleNamespace(get_type_name=lambda: "f32")
    compiled = SimpleNamespace(get_property=lambda _: kind)
    core = SimpleNamespace(compile_model=lambda *_: compiled, get_property=lambda *_: "")
    fake = ModuleType("openvino")
    vars(fake).update(Core=lambda: core, get_version=lambda: "1")
    monkeypatch.setitem(sys.modules, "openvino", fake)
    with pytest.raises(BackendError, match="computes in f32 here, not bf16; use --precision fp32"):
        OpenVinoBackend(onnx_file(1), precision="bf16")


def test_auto_does_without_an_openvino_that_is_broken(
    play_processor: Processor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("Exception from core.cpp:1:\nno plugin for CPU\n\n")

    both = ("openvino", "ort:cpu")
    broken = ModuleType("openvino")
    vars(broken).update(Core=fail)
    monkeypatch.setitem(sys.modules, "openvino", broken)
    monkeypatch.setattr(
        "agsr.engines.ranking.missing_requirement", lambda p: "" if str(p) in both else "gone"
    )
    play_processor("avx512_bf16")
    with open_backend("auto", "psnr", steps=1) as backend:
        assert backend.info.name == "ort"
    assert "can't be loaded: no plugin for CPU; running on ort:cpu fp32 instead" in caplog.text


@pytest.mark.parametrize(("said", "kind"), [("std::bad_alloc", MemoryError), ("", BackendError)])
def test_openvinos_reason_is_reported_when_a_run_fails(
    onnx_file: Callable[[int], Path],
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    kind: type[Exception],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(said)

    request = SimpleNamespace(infer=fail)
    session = OpenVinoSession(SimpleNamespace(create_infer_request=lambda: request))
    backend = OrtBackend(onnx_file(1))
    monkeypatch.setattr(backend, "_session", session)
    with pytest.raises(kind, match=said or "RuntimeError"):
        backend.upscale(sample_batch(1, 4, 4))


def test_files_that_are_no_model_are_refused(
    tmp_path: Path, onnx_file: Callable[[int], Path]
) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(ModelError, match="no such file"):
        OrtBackend(path)
    with pytest.raises(ModelError, match="no such file"):
        OpenVinoBackend(path)
    for content in (b"", b"nonsense", onnx_file(1).read_bytes()[:5000]):
        path.write_bytes(content)
        for backend in (OrtBackend, *OPENVINO):
            with pytest.raises(ModelError):
                backend(path)


def test_models_of_others_are_refused(tmp_path: Path, onnx_file: Callable[[int], Path]) -> None:
    path = tmp_path / "other.onnx"
    model = onnx.load(onnx_file(1))
    del model.metadata_props[:]
    onnx.save(model, path)
    for backend in (OrtBackend, *OPENVINO):
        with pytest.raises(ModelError, match="not exported by agsr"):
            backend(path)
    renamed = onnx.load(onnx_file(1))
    renamed.graph.input[0].name = "image"
    for node in renamed.graph.node:
        node.input[:] = ["image" if name == "lr" else name for name in node.input]
    onnx.save(renamed, path)
    for backend in (OrtBackend, *OPENVINO):
        with pytest.raises(ModelError, match="expected lr → sr, float32 of rank 4"):
            backend(path)


def test_torch_explains_a_device_it_lacks(checkpoint_file: Path) -> None:
    for device in ("cuda:99", "warp"):
        with pytest.raises(BackendError, match=f"can't use the device '{device}'"):
            TorchBackend(checkpoint_file, steps=1, device=device)


def test_running_out_of_memory_is_a_memory_error(
    checkpoint_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = TorchBackend(checkpoint_file, steps=1)

    def fail(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory\nmore")

    monkeypatch.setattr(backend, "_network", fail)
    with pytest.raises(MemoryError, match="can't allocate memory"):
        backend.upscale(sample_batch(1, 4, 4))


def test_onnx_runtimes_error_has_the_export_command(tmp_path: Path) -> None:
    path = tmp_path / "srcnn.safetensors"
    save_checkpoint(small_baseline("srcnn"), path)
    with pytest.raises(ModelError, match=f"agsr export --weights {path}"):
        open_backend("ort", str(path), steps=1)


def test_bound_memory_has_the_same_results_and_does_not_overwrite_them(
    onnx_file: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """I/O binding, as on a GPU, but on the CPU's memory."""
    random = np.random.default_rng(0)
    batches = [random.random((1, 3, *size), dtype=np.float32) for size in ((9, 7), (9, 7), (5, 8))]
    plain = OrtBackend(onnx_file(2))
    expected = [plain.upscale(lr) for lr in batches]
    bound = dataclasses.replace(PROVIDERS["cpu"], memory="cpu")
    monkeypatch.setitem(PROVIDERS, "cpu", bound)
    with OrtBackend(onnx_file(2)) as backend:
        results = [backend.upscale(lr) for lr in batches]
    for sr, wanted in zip(results, expected, strict=True):
        np.testing.assert_array_equal(sr, wanted)
