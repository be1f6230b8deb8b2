"""Places as text and as values, and what is asked of each runtime for them."""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from stubs import Repeat

from agsr.bench import doctor
from agsr.engines import ranking
from agsr.engines import request as requests
from agsr.engines.open import check_request, open_backend
from agsr.engines.places import BACKENDS, RUNTIMES, Place, place_from_options
from agsr.engines.ranking import PLACES, default_precision
from agsr.engines.runtimes import onnxruntime_backend
from agsr.engines.runtimes.providers import PROVIDERS
from agsr.engines.tensorrt.options import BuildOptions
from agsr.errors import BackendError, BackendRequestError
from agsr.pretrained import find_onnx


@pytest.mark.parametrize(
    ("text", "runtime", "kind", "index", "gpu", "threads"),
    [
        ("trt", "trt", "cuda", 0, True, False),
        ("trt:cuda:2", "trt", "cuda", 2, True, False),
        ("ort:cpu", "ort", "cpu", 0, False, True),
        ("ort:cuda", "ort", "cuda", 0, True, False),
        ("ort:cuda:1", "ort", "cuda", 1, True, False),
        ("ort:tensorrt-rtx", "ort", "tensorrt-rtx", 0, True, False),
        ("openvino", "openvino", "cpu", 0, False, True),
        ("torch", "torch", "cpu", 0, False, False),
        ("torch:cuda", "torch", "cuda", 0, True, False),
        ("auto", "auto", "cpu", 0, False, True),
    ],
)
def test_a_place_is_printed_as_it_was_parsed(
    text: str, runtime: str, kind: str, index: int, gpu: bool, threads: bool
) -> None:
    place = Place.parse(text)
    assert str(place) == text
    assert (place.runtime, place.kind, place.index) == (runtime, kind, index)
    assert (place.on_gpu, place.takes_threads) == (gpu, threads)
    assert Place(runtime, place.device) == place


def test_a_default_device_need_not_be_named() -> None:
    assert Place.parse("ort") == Place.parse("ort:cpu")
    assert Place.parse("trt") == Place.parse("trt:cuda") == Place("trt")
    assert len({*PLACES, *map(Place.parse, map(str, PLACES))}) == len(PLACES)


@pytest.mark.parametrize("device", ["cuda:", "cuda:-1", "cuda:1:2", "cuda:٣", "CUDA", "0"])
def test_a_device_that_is_none_is_rejected(device: str) -> None:
    assert not Place("trt", device).is_known
    with pytest.raises(BackendRequestError, match=r"no device .* expected one like cuda:1"):
        _ = Place("trt", device).index


@pytest.mark.parametrize(
    ("runtime", "provider", "device", "message"),
    [
        ("ort", "cpu:1", None, "no provider named 'cpu:1'; known: cpu, cuda"),
        ("ort", "", None, "no provider named ''"),
        ("ort", "cuda", "", "the device is empty"),
        ("torch", None, "", "the device is empty"),
        ("ort", "cuda", "cuda:٣", "contradict one another"),
        ("ort", "cuda", "cpu", "contradict one another"),
        ("trt", None, "cpu", "no --device cpu; known: cuda"),
    ],
)
def test_options_that_name_no_place_are_wrong_requests(
    runtime: str, provider: str | None, device: str | None, message: str
) -> None:
    with pytest.raises(BackendRequestError, match=message):
        place_from_options(runtime, provider, device)
    with pytest.raises(BackendRequestError, match=message):
        open_backend(runtime, provider=provider, device=device, allow_fallback=True)


@pytest.mark.parametrize("steps", [0, 99])
@pytest.mark.parametrize("runtime", ["torch", "ort", "auto"])
def test_a_request_is_rejected_alike_with_and_without_loading(runtime: str, steps: int) -> None:
    for request in (check_request, open_backend):
        with pytest.raises(BackendRequestError, match=f"steps is {steps}; expected 1 to "):
            request(runtime, "psnr", steps=steps)


def test_every_provider_of_onnx_runtime_is_a_place() -> None:
    assert tuple(PROVIDERS) == RUNTIMES["ort"].devices


def test_a_place_with_an_empty_device_is_a_wrong_request() -> None:
    with pytest.raises(
        BackendRequestError, match="no device in 'ort:'; expected ort or ort:DEVICE"
    ):
        Place.parse("ort:")


@pytest.mark.parametrize(
    ("provider", "attempts"),
    [("cuda", [("cuda", None), ("cpu", 1)]), ("cpu", [("cpu", 1), ("cpu", 1)])],
)
def test_threads_are_for_the_cpu_that_steps_in(
    monkeypatch: pytest.MonkeyPatch, provider: str, attempts: list[tuple[str, int | None]]
) -> None:
    found: list[tuple[str, int | None]] = []

    def fake(_: Path, *, provider: str, threads: int | None, **__: Any) -> Repeat:
        found.append((provider, threads))
        if len(found) == 1:
            raise BackendError("not here")
        return Repeat()

    monkeypatch.setattr(onnxruntime_backend, "OrtBackend", fake)
    open_backend("ort", "psnr", steps=1, provider=provider, threads=1, allow_fallback=True)
    assert found == attempts


def test_tensorrt_computes_shipped_weights_in_fp16_wherever_it_is_asked_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[tuple[str, int]] = []

    def fake(path: Path, *, report: Any, device: int) -> Repeat:  # noqa: ARG001
        opened.append((path.name, device))
        backend = Repeat()
        backend.info = dataclasses.replace(backend.info, precision="fp16")
        return backend

    monkeypatch.setattr("agsr.engines.tensorrt.backend.TrtBackend", fake)
    monkeypatch.setattr(
        ranking, "missing_requirement", lambda place: "" if place.runtime == "trt" else "gone"
    )
    monkeypatch.setattr(doctor, "missing_requirement", ranking.missing_requirement)
    monkeypatch.setattr(doctor, "find_spec", lambda _: None)
    open_backend("trt", "psnr")
    open_backend("trt", "psnr", precision="auto", device="cuda:1")
    open_backend("auto", "psnr")
    checks = {check.name: check for check in doctor.backends()}
    assert checks["trt"].ok
    path = find_onnx("psnr", 4, "fp16")
    assert opened == [(path.name, device) for device in (0, 1, 0, 0)]


def test_what_doctor_builds_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[Any] = []

    def fake(_: Path, *, report: Any, device: int) -> Repeat:  # noqa: ARG001
        reports.append(report)
        raise BackendError("enough")

    @contextmanager
    def shown(name: str) -> Any:
        yield f"progress of {name}"

    monkeypatch.setattr("agsr.engines.tensorrt.backend.TrtBackend", fake)
    monkeypatch.setattr(
        ranking, "missing_requirement", lambda place: "" if place.runtime == "trt" else "gone"
    )
    monkeypatch.setattr(doctor, "missing_requirement", ranking.missing_requirement)
    monkeypatch.setattr(doctor, "find_spec", lambda _: None)
    assert not all(check.ok for check in (*doctor.backends(shown), *doctor.choice(shown)))
    assert reports == ["progress of building an engine of psnr"] * 2


@pytest.mark.parametrize("name", ["x.engine", "./x.engine", "folder/x.engine"])
@pytest.mark.parametrize("precision", [None, "auto"])
def test_an_engine_has_a_precision_of_its_own_wherever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, precision: str | None
) -> None:
    opened: list[str] = []

    def fake(path: Path, **_: Any) -> Repeat:
        opened.append(str(path))
        backend = Repeat()
        backend.info = dataclasses.replace(backend.info, precision="bf16")
        return backend

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("agsr.engines.tensorrt.backend.TrtBackend", fake)
    assert default_precision(Place("trt"), name) is None
    open_backend("auto", name, precision=precision)
    assert opened == [str(Path(name))]


def test_the_default_options_build_for_this_gpu() -> None:
    assert BuildOptions().targets == ()
    assert BACKENDS[0] == "auto"


@pytest.mark.parametrize(
    ("installed", "device", "expected"),
    [
        (("torch", "ort", "trt"), "cuda:1", "torch:cuda:1"),
        (("ort", "trt"), "cuda:1", "trt:cuda:1"),
        (("ort",), "cuda:1", "ort:cuda:1"),
        (("ort", "trt"), "cpu", "ort:cpu"),
        ((), "cuda:1", "torch:cuda:1"),
    ],
)
def test_a_device_alone_means_a_runtime_that_is_installed(
    monkeypatch: pytest.MonkeyPatch, installed: tuple[str, ...], device: str, expected: str
) -> None:
    """No option for GPUs asks for torch where TensorRT or ONNX Runtime is there."""
    monkeypatch.setattr(requests, "is_runtime_installed", lambda name: name in installed)
    assert str(requests.Request(weights="psnr", device=device).place) == expected
