"""From names and options to a loaded backend, or a message that says what to change."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Repeat

from agsr.engines.open import open_backend
from agsr.engines.places import Place
from agsr.engines.request import Request
from agsr.engines.runtimes.onnxruntime_backend import OrtBackend
from agsr.engines.runtimes.providers import PROVIDERS
from agsr.errors import AgsrError, BackendError, BackendRequestError, CheckpointError
from agsr.export.verify import sample_batch
from agsr.pretrained import WEIGHTS_FOLDER, find_onnx, shipped_names, shipped_steps

pytestmark = pytest.mark.processor


def test_selection_follows_the_file(
    checkpoint_file: Path, onnx_file: Callable[[int], Path]
) -> None:
    assert open_backend("auto", str(checkpoint_file)).info.name == "torch"
    assert open_backend("auto", str(onnx_file(2))).info.steps == 2
    assert open_backend("auto", "psnr").info.name in ("openvino", "ort")  # by the processor
    assert open_backend("torch", "psnr", steps=2).info.steps == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backend": "magic"}, "no backend named 'magic'"),
        ({"steps": 0}, "steps is 0; expected 1 to 16"),
        ({"weights": "nobody"}, "no weights named 'nobody'; shipped: gan, photo, psnr"),
        ({"weights": "nobody", "backend": "torch"}, "no weights named 'nobody'"),
        (
            {"weights": "psnr", "steps": 9, "backend": "ort", "precision": "int8"},
            "agsr export --weights psnr --steps 9 --precision int8",
        ),
        ({"weights": "gone.onnx"}, "gone.onnx: no such file"),
        ({"weights": "gone.safetensors"}, "gone.safetensors: no such file"),
        ({"weights": "x.safetensors", "backend": "ort"}, r"x\.safetensors: no such file"),
        ({"weights": "x.onnx", "backend": "torch"}, "--backend ort"),
    ],
)
def test_wrong_requests_are_explained(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(AgsrError, match=message):
        open_backend(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "backends"),
    [
        ({"device": "cpu"}, ["torch"]),
        ({"provider": "cpu"}, ["ort"]),
        ({"threads": 1}, ["openvino", "ort"]),
        ({"threads": 10**9}, ["openvino", "ort"]),
    ],
)
@pytest.mark.usefixtures("all_cpus")
def test_auto_follows_the_options(options: dict[str, Any], backends: list[str]) -> None:
    with open_backend("auto", "psnr", steps=1, **options) as loaded:
        assert loaded.info.name in backends
        assert loaded.upscale(sample_batch(1, 4, 4)).shape == (1, 3, 16, 16)


@pytest.mark.parametrize(
    "options",
    [
        {"backend": "torch", "provider": "cuda"},
        {"backend": "openvino", "provider": "cpu"},
    ],
)
def test_options_of_another_backend_are_never_ignored(options: dict[str, Any]) -> None:
    with pytest.raises(BackendError, match="does not belong to the backend"):
        open_backend(**options)


@pytest.mark.parametrize("device", ["cuda:0", "dml", "gpus", ""])
def test_a_device_that_a_backend_lacks_is_a_wrong_request(device: str) -> None:
    with pytest.raises(BackendRequestError, match="device") as caught:
        open_backend("openvino", device=device, allow_fallback=True)
    assert "cpu" in str(caught.value)


def test_openvino_runs_on_the_cpu_that_is_named() -> None:
    with open_backend("openvino", "psnr", steps=1, device="cpu") as loaded:
        assert (loaded.info.name, loaded.info.device) == ("openvino", "CPU")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "torch"}, "'torch'"),
        ({"backend": "trt"}, "'trt'"),
        ({"backend": "trt", "device": "cuda:1"}, "'trt:cuda:1'"),
        ({"backend": "ort", "provider": "tensorrt-rtx"}, "'ort:tensorrt-rtx'"),
        ({"backend": "ort", "device": "cuda:1"}, "'ort:cuda:1'"),
        ({"weights": "a.safetensors"}, "'torch'"),
        ({"weights": "a.engine"}, "'trt'"),
    ],
)
def test_threads_are_for_the_cpu(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BackendError, match=f"--threads is for .* on the CPU, not for {message}"):
        open_backend(**options, threads=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "ort", "provider": "cpu", "device": "cuda"}, "contradict.*--device cpu$"),
        ({"provider": "cuda", "device": "cpu"}, "contradict one another; .*--device cuda:NUMBER"),
        ({"provider": "cuda", "device": "cuda:one"}, "contradict one another"),
        ({"backend": "ort", "device": "tpu"}, "'ort' has no --device tpu; known: cpu, cuda"),
        ({"backend": "trt", "device": "cpu"}, "'trt' has no --device cpu; known: cuda"),
        ({"backend": "trt", "device": "1"}, "'trt' has no --device 1"),
    ],
)
def test_devices_that_do_not_fit_are_rejected(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BackendError, match=message):
        open_backend(**options)


def test_steps_that_contradict_the_file_are_refused(onnx_file: Callable[[int], Path]) -> None:
    with pytest.raises(BackendError, match="exported with 2 steps, asked for 3"):
        open_backend("ort", str(onnx_file(2)), steps=3)


def test_shipped_files_are_complete_and_of_one_training() -> None:
    assert "psnr" in shipped_names()
    assert shipped_steps("psnr") == [1, 2, 3, 4, 5, 6]
    hashes = {open_backend("ort", "psnr", steps=s).info.weights_hash for s in range(1, 7)}
    hashes.add(open_backend("torch", "psnr").info.weights_hash)
    assert len(hashes) == 1


def test_a_damaged_shipped_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in ("psnr-4.onnx", "psnr.safetensors"):
        content = bytearray((WEIGHTS_FOLDER / file).read_bytes())
        content[len(content) // 2] ^= 1
        (tmp_path / file).write_bytes(content)
    monkeypatch.setattr("agsr.pretrained.WEIGHTS_FOLDER", tmp_path)
    for steps in (4, 1):
        with pytest.raises(CheckpointError, match="missing or damaged"):
            find_onnx("psnr", steps)


def test_a_fallback_must_be_allowed_and_is_reported(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = dataclasses.replace(PROVIDERS["cuda"], ort_name="NoSuchProvider")
    monkeypatch.setitem(PROVIDERS, "cuda", missing)
    with pytest.raises(BackendError, match="provider 'cuda' is not installed"):
        open_backend("ort", provider="cuda")
    asked: list[int | None] = []

    def noting(path: Path, **options: Any) -> OrtBackend:
        asked.append(options["threads"])
        return OrtBackend(path, **options)

    monkeypatch.setattr("agsr.engines.runtimes.onnxruntime_backend.OrtBackend", noting)
    with open_backend("torch", device="cuda:99", threads=1, allow_fallback=True) as backend:
        assert backend.info.device == "CPUExecutionProvider"
    assert asked == [1]
    with open_backend("ort", provider="cuda", allow_fallback=True) as backend:
        assert backend.info.device == "CPUExecutionProvider"
    assert "'cuda' is not installed" in caplog.text
    assert "running on the CPU instead" in caplog.text


@pytest.mark.parametrize(
    "asked",
    [
        {"backend": "torch", "device": "cuda:99", "precision": "bf16"},
        {"backend": "ort", "provider": "cuda", "threads": 1},
    ],
)
def test_weights_for_torch_fall_back_to_torch_on_the_cpu(
    checkpoint_file: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any]
) -> None:
    """ONNX Runtime can't run a checkpoint; another project's weights it would have to export."""
    tried: list[Request] = []

    def fail_once(request: Request, *_: Any) -> Repeat:
        tried.append(request)
        if len(tried) == 1:
            raise BackendError("no GPU")
        return Repeat()

    monkeypatch.setattr("agsr.engines.open._open_request", fail_once)
    for weights in (str(checkpoint_file), "other.pth"):
        tried.clear()
        open_backend(weights=weights, allow_fallback=True, **asked)
        assert (tried[1].place, tried[1].precision) == (Place("torch", "cpu"), None)


@pytest.mark.parametrize("asked", [{"steps": 2}, {"precision": "fp16"}])
def test_what_is_not_as_asked_is_closed_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, asked: dict[str, Any]
) -> None:
    backend = Repeat()
    (tmp_path / "a.onnx").touch()
    monkeypatch.setattr(
        "agsr.engines.runtimes.onnxruntime_backend.OrtBackend", lambda *_, **__: backend
    )
    with pytest.raises(BackendError, match="make it with: agsr export"):
        open_backend("ort", str(tmp_path / "a.onnx"), **asked)
    assert backend.closed == 1
