"""GPUs that aren't NVIDIA's: what ONNX Runtime and OpenVINO are asked for; stand-ins note it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from agsr.bench import doctor
from agsr.contract import Precision
from agsr.engines import ranking
from agsr.engines.open import check_request, open_backend
from agsr.engines.places import UNNUMBERED, Place, place_from_options
from agsr.engines.pool.devices import worker_devices
from agsr.engines.ranking import OTHER_PLACES, PLACES, missing_requirement
from agsr.engines.request import Request
from agsr.engines.runtimes import onnxruntime_session, openvino_session, providers
from agsr.engines.runtimes.onnxruntime_backend import OrtBackend
from agsr.engines.runtimes.onnxruntime_session import open_session
from agsr.engines.runtimes.openvino_backend import OpenVinoBackend
from agsr.engines.runtimes.providers import PROVIDERS, STATIC
from agsr.engines.upscaler import Upscaler
from agsr.errors import BackendError, BackendRequestError
from agsr.pretrained import find_onnx

SHIPPED = find_onnx("psnr", 1)

OTHERS = ("dml", "coreml", "migraphx")


class Runtime:
    """ONNX Runtime with every provider, which the CPU stands in for."""

    __version__ = "1.99"
    ExecutionMode = onnxruntime.ExecutionMode

    def __init__(self, *names: str) -> None:
        self._names = list(names) or [provider.ort_name for provider in PROVIDERS.values()]
        self.options: Any = None
        self.entries: dict[str, str] = {}
        self.providers: list[Any] = []
        self.overrides: dict[str, int] = {}
        self.shapes: list[tuple[int, ...]] = []

    def get_available_providers(self) -> list[str]:
        return self._names

    def SessionOptions(self) -> Any:  # noqa: N802
        self.options = SimpleNamespace(
            add_session_config_entry=self.entries.__setitem__,
            add_free_dimension_override_by_name=self.overrides.__setitem__,
            execution_mode=None,
        )
        return self.options

    def InferenceSession(self, path: str, _: Any, *, providers: Any, **__: Any) -> Any:  # noqa: N802
        self.providers = providers
        return Session(path, providers[0][0], self.shapes)


class Session:
    """A session of the CPU under the name of another provider; notes the shapes of its inputs."""

    def __init__(self, path: str, provider: str, shapes: list[tuple[int, ...]]) -> None:
        self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self._provider, self._shapes = provider, shapes

    def run(self, names: Any, feeds: Any) -> Any:
        self._shapes += [value.shape for value in feeds.values()]
        return self._session.run(names, feeds)

    def get_providers(self) -> list[str]:
        return [self._provider, "CPUExecutionProvider"]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Runtime:
    found = Runtime()
    monkeypatch.setattr(onnxruntime_session, "require", lambda *_, **__: found)
    monkeypatch.setattr(providers, "require", lambda *_, **__: found)
    monkeypatch.setenv("AGSR_CACHE", str(tmp_path / "cache"))
    return found


OPTIONS = {
    "dml": {"device_id": "1"},
    "coreml": {"ModelFormat": "MLProgram", "MLComputeUnits": "ALL"}
    | {"RequireStaticInputShapes": "1"},
    "migraphx": {"device_id": "1"},
    "cuda": {"device_id": "1", "use_tf32": "0"},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_session_gets_the_options_of_its_provider(
    name: str, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime_session, "_load_libraries", lambda _: None)
    open_session(SHIPPED, name, device=1)
    ((ort_name, options),) = runtime.providers
    assert ort_name == PROVIDERS[name].ort_name
    cache = options.pop(PROVIDERS[name].cache_option, None)
    assert options == OPTIONS[name]
    assert runtime.options.enable_mem_pattern is False
    sequential = onnxruntime.ExecutionMode.ORT_SEQUENTIAL if name in OTHERS else None
    assert runtime.options.execution_mode == sequential
    assert runtime.entries == ({} if name in OTHERS else {"session.disable_cpu_ep_fallback": "1"})
    sides = {"batch": 1, "height": STATIC[0], "width": STATIC[1]}
    assert runtime.overrides == (sides if PROVIDERS[name].static else {})
    assert (cache is not None) == bool(PROVIDERS[name].cache_option)
    assert cache is None or Path(cache).is_dir()


def test_a_compiled_network_is_cached_by_the_content_of_its_file(
    runtime: Runtime, tmp_path: Path
) -> None:
    """CoreML itself would go by the path of the file."""
    folders = []
    for name in ("psnr", "gan"):
        path = tmp_path / "a.onnx"
        path.write_bytes(find_onnx(name, 1).read_bytes())
        open_session(path, "coreml")
        folders.append(runtime.providers[0][1]["ModelCacheDirectory"])
    assert len(set(folders)) == 2


@pytest.mark.parametrize("name", ["coreml", "migraphx"])
def test_a_provider_for_one_size_gets_pictures_of_that_size(
    name: str, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers, "STATIC", (64, 56))
    picture = np.random.default_rng(0).integers(0, 256, (60, 70, 3), dtype=np.uint8)
    with OrtBackend(SHIPPED, provider=name) as backend:
        assert backend.info.largest == backend.sizes.fixed == (64, 56)
        assert backend.upscale(np.zeros((2, 3, 9, 7), np.float32)).shape == (2, 3, 36, 28)
        with Upscaler(backend=backend, halo=8) as upscaler:
            found = upscaler(picture)
    assert set(runtime.shapes) == {(1, 3, 64, 56)}
    with Upscaler(str(SHIPPED), backend="ort") as upscaler:
        inside = slice(0, 4 * 40)  # beyond, mirrored pixels take part
        np.testing.assert_allclose(found[inside, inside], upscaler(picture)[inside, inside], atol=1)


@pytest.mark.parametrize(
    ("device", "place"),
    [
        ("dml:0", "ort:dml:0"),
        ("dml", "ort:dml"),
        ("coreml", "ort:coreml"),
        ("migraphx:1", "ort:migraphx:1"),
        ("gpu", "openvino:gpu"),
        ("gpu:1", "openvino:gpu:1"),
        ("npu", "openvino:npu"),
    ],
)
def test_a_device_selects_the_runtime_that_alone_has_it(device: str, place: str) -> None:
    for weights in ("psnr", str(SHIPPED)):
        assert str(Request(weights=weights, device=device).place) == place
    assert Place.parse(place).is_known
    check_request("auto", "psnr", device=device)


@pytest.mark.parametrize("device", ["coreml:0", "npu:1", "dml:", "dml:x", "amd"])
def test_devices_that_are_none_are_wrong_requests(device: str) -> None:
    runtime = "openvino" if device.startswith("npu") else "ort"
    with pytest.raises(BackendRequestError, match=f"has no --device {device}; known: cpu"):
        place_from_options(runtime, None, device)


def test_provider_and_device_must_agree() -> None:
    assert str(place_from_options("ort", "dml", "dml:1")) == "ort:dml:1"
    for provider, device in (("dml", "cuda:0"), ("coreml", "coreml:0"), ("cuda", "dml:0")):
        with pytest.raises(BackendRequestError, match="contradict one another"):
            place_from_options("ort", provider, device)
    assert {"cpu", "coreml", "npu"} == set(UNNUMBERED)
    names = [device.name for device in worker_devices("dml:0,dml:1", "psnr", {})]
    assert names == ["dml:0", "dml:1"]


def test_a_provider_that_is_missing_is_named_with_what_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(onnxruntime_session, "require", lambda *_, **__: Runtime("x"))
    with pytest.raises(BackendError, match=r"needs Windows and a GPU.*onnxruntime-directml"):
        open_backend("ort", str(SHIPPED), device="dml:0")


@pytest.mark.parametrize(("system", "here"), [("win32", "dml"), ("darwin", "coreml")])
def test_doctor_lists_every_other_gpu_with_what_is_missing(
    system: str, here: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = Runtime("CPUExecutionProvider", PROVIDERS[here].ort_name)
    monkeypatch.setattr(providers, "require", lambda *_, **__: runtime)
    monkeypatch.setattr(providers, "sys", SimpleNamespace(platform=system))
    monkeypatch.setattr(doctor, "has_device", lambda kind: kind == "gpu")
    tried: list[str] = []
    check = doctor.Check(name="x", found="runs", ok=True)
    monkeypatch.setattr(doctor, "_trial", lambda place, _: tried.append(str(place)) or check)
    checks = {check.name: check for check in doctor.other_backends()}
    assert tried == [f"ort:{here}", "openvino:gpu"]
    assert checks["ort migraphx"].found == "needs Linux, ROCm and an AMD GPU"
    assert checks["ort migraphx"].advice == ""
    assert checks["openvino npu"].found == "OpenVINO finds no NPU"
    assert "install its driver" in checks["openvino npu"].advice


def test_a_missing_driver_is_not_answered_by_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "_has_driver", lambda: False)
    place = Place("torch", "cuda")
    assert doctor._advice(place, missing_requirement(place)) == (
        "for an NVIDIA GPU, install its driver first"
    )
    monkeypatch.setattr(ranking, "_has_driver", lambda: True)
    monkeypatch.setattr(ranking, "_has_cuda", lambda _: False)
    assert "pytorch.org" in doctor._advice(place, missing_requirement(place))


def test_other_gpus_are_used_only_if_they_are_named() -> None:
    assert not set(PLACES) & set(OTHER_PLACES)


class Core:
    """Stands in for OpenVINO's core, with two GPUs and an NPU."""

    available_devices = ("CPU", "GPU.0", "GPU.1", "NPU")

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self._hint = ""

    def get_property(self, _: str, name: str) -> Any:
        return ["FP32", "FP16"] if name == "OPTIMIZATION_CAPABILITIES" else "a GPU"

    def read_model(self, _: str) -> Any:
        return SimpleNamespace(reshape=lambda shapes: self.calls.append(shapes))

    def compile_model(self, _: Any, device: str, options: dict[str, str]) -> Any:
        self.calls.append((device, options))
        hint = SimpleNamespace(get_type_name=lambda: options["INFERENCE_PRECISION_HINT"])
        tensors = {
            name: SimpleNamespace(
                get_names=lambda name=name: [name],
                get_element_type=lambda: SimpleNamespace(get_type_name=lambda: "f32"),
                get_partial_shape=lambda: SimpleNamespace(rank=SimpleNamespace(is_dynamic=True)),
            )
            for name in ("lr", "sr")
        }
        return SimpleNamespace(
            get_property=lambda _: hint,
            create_infer_request=lambda: None,
            inputs=[tensors["lr"]],
            outputs=[tensors["sr"]],
        )


@pytest.mark.parametrize(
    ("device", "precision", "name", "hint"),
    [
        ("gpu", "fp32", "GPU", "f32"),
        ("gpu:1", "fp16", "GPU.1", "f16"),
        ("npu", "fp16", "NPU", "f16"),
    ],
)
def test_openvinos_devices_are_compiled_for_with_their_precision(
    device: str,
    precision: Precision,
    name: str,
    hint: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    core = Core()
    library = SimpleNamespace(get_version=lambda: "1")
    monkeypatch.setattr(openvino_session, "require", lambda *_, **__: library)
    monkeypatch.setattr(openvino_session, "_core", lambda _: core)
    monkeypatch.setattr("agsr.engines.runtimes.openvino_backend.check_io", lambda *_: None)
    monkeypatch.setenv("AGSR_CACHE", str(tmp_path))
    path = find_onnx("psnr", 1, precision)
    with OpenVinoBackend(path, precision=precision, device=device) as backend:
        assert backend.info.device == device.upper()
        assert backend.sizes.fixed == (STATIC if device == "npu" else None)
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
    found, given = core.calls[-1]
    cache = given.pop("CACHE_DIR", "")
    assert (found, given) == (name, options)
    assert cache
    fixed = [call for call in core.calls if isinstance(call, dict)]
    assert bool(fixed) == (device == "npu")


def test_an_openvino_device_that_is_not_here_is_named() -> None:
    pytest.importorskip("openvino")
    with pytest.raises(BackendError, match=r"OpenVINO finds no GPU\.9 here, only .*CPU"):
        OpenVinoBackend(SHIPPED, device="gpu:9")
