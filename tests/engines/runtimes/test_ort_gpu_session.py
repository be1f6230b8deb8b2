"""How sessions of ONNX Runtime on a GPU are made; a stand-in for ONNX Runtime notes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import onnx
import onnxruntime
import pytest
from onnx import helper

from agsr.engines.open import open_backend
from agsr.engines.runtimes import onnxruntime_session
from agsr.engines.runtimes.onnxruntime_backend import OrtBackend
from agsr.engines.runtimes.onnxruntime_session import open_session
from agsr.engines.runtimes.providers import PROVIDERS, Provider
from agsr.errors import BackendError, BackendRequestError, ModelError

GPU, CPU = onnxruntime.OrtHardwareDeviceType.GPU, onnxruntime.OrtHardwareDeviceType.CPU


class Session:
    """Stands in for a session, whose providers are those that are named."""

    def __init__(self, *names: str) -> None:
        self._names = list(names)

    def get_providers(self) -> list[str]:
        return self._names


class Runtime:
    """Stands in for onnxruntime-gpu: notes what is called, in order."""

    __version__ = "1.99"
    OrtHardwareDeviceType = onnxruntime.OrtHardwareDeviceType

    def __init__(self, fault: str = "", devices: tuple[Any, ...] = ()) -> None:
        self.calls: list[Any] = []
        self._fault, self._devices = fault, devices

    def get_available_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def preload_dlls(self, *, directory: str) -> None:
        self.calls.append(("preload", directory))
        print("Failed to load libcudnn.so.9")  # noqa: T201  # as ONNX Runtime does

    def get_ep_devices(self) -> tuple[Any, ...]:
        name = "NvTensorRTRTXExecutionProvider"
        return tuple(
            SimpleNamespace(ep_name=name, number=number, device=SimpleNamespace(type=kind))
            for number, kind in enumerate(self._devices)
        )

    def SessionOptions(self) -> Any:  # noqa: N802
        note = lambda *values: self.calls.append(("devices", *values))  # noqa: E731
        return SimpleNamespace(
            add_session_config_entry=lambda *_: None, add_provider_for_devices=note
        )

    def InferenceSession(self, _: str, __: Any, **arguments: Any) -> Any:  # noqa: N802
        self.calls.append(("session", arguments))
        if self._fault:
            if arguments.get("enable_fallback", 1):
                print("*************** EP Error ***************")  # noqa: T201
                raise RuntimeError("Conflicting session configuration: explicitly added the CPU EP")
            raise RuntimeError(self._fault)
        return Session(*(provider.ort_name for provider in PROVIDERS.values()))


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    def stand_in(ort: Any) -> Any:
        monkeypatch.setattr(onnxruntime_session, "require", lambda *_, **__: ort)
        return ort

    return stand_in


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "a.onnx").touch()
    return tmp_path / "a.onnx"


def test_cudas_libraries_are_loaded_once_before_the_first_session_on_cuda(
    use: Callable[[Any], Any], path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ort = use(Runtime())
    open_session(path, "cpu")
    assert [call[0] for call in ort.calls] == ["session"]
    for _ in range(2):
        open_session(path, "cuda")
    assert [call[0] for call in ort.calls] == ["session", "preload", "session", "session"]
    assert ort.calls[1] == ("preload", "")
    assert capsys.readouterr().out == ""


def test_versions_that_cannot_load_them_do_without(use: Callable[[Any], Any], path: Path) -> None:
    class Older(Runtime):
        preload_dlls = None  # type: ignore[assignment]

    ort = use(Older())
    assert open_session(path, "cuda")

    class Failing(Runtime):
        def preload_dlls(self, *, directory: str) -> None:
            raise RuntimeError(f"no directory {directory}")

    ort = use(Failing())
    assert open_session(path, "cuda")
    assert [call[0] for call in ort.calls] == ["session"]


def test_a_gpu_is_chosen_by_its_number(use: Callable[[Any], Any], path: Path) -> None:
    ort = use(Runtime())
    open_session(path, "cuda", device=1)
    (_, (_, arguments)) = ort.calls
    assert arguments["providers"] == [
        ("CUDAExecutionProvider", {"use_tf32": "0", "device_id": "1"})
    ]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("CUDA failure 100: no CUDA-capable device is detected ; GPU=0", "finds no GPU"),
        ("CUDA failure 35: CUDA driver version is insufficient for CUDA runtime", "R580"),
        ("libcublasLt.so.13: cannot open shared object file", "libcublasLt.so.13"),
    ],
)
def test_what_the_gpu_lacks_is_the_message_and_stdout_stays_clean(
    use: Callable[[Any], Any],
    path: Path,
    capsys: pytest.CaptureFixture[str],
    fault: str,
    message: str,
) -> None:
    use(Runtime(fault))
    with pytest.raises(BackendError, match=message) as caught:
        open_session(path, "cuda")
    assert "ONNX Runtime can't use 'cuda' here" in str(caught.value)
    assert "Conflicting" not in str(caught.value)
    assert capsys.readouterr().out == ""


UNLOADED = "This session contains graph nodes that are assigned to the default CPU EP, but fallback"


@pytest.mark.parametrize(
    ("library", "cause"),
    [
        (b"", "the libraries of its GPU are missing"),
        (None, "libnowhere.so.13: cannot open shared object file"),
    ],
)
def test_a_provider_that_is_not_loaded_differs_from_a_graph_that_it_cannot_run(
    use: Callable[[Any], Any],
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    library: bytes | None,
    cause: str,
) -> None:
    loaded: list[str] = []

    class Unloaded(Runtime):
        def InferenceSession(self, _: str, __: Any, **arguments: Any) -> Any:  # noqa: N802
            self.calls.append(("session", arguments))
            if sum(call[0] == "session" for call in self.calls) % 2:
                raise RuntimeError(UNLOADED)
            return Session("CPUExecutionProvider", *loaded)

    def load(name: str) -> None:
        assert Path(name).name == "libonnxruntime_providers_cuda.so"
        raise OSError(cause if library is None else "undefined symbol: Provider_GetHost")

    (path.parent / "capi").mkdir()
    (path.parent / "capi" / "libonnxruntime_providers_cuda.so").touch()
    ort = use(Unloaded())
    ort.__file__ = str(path.parent / "__init__.py")
    monkeypatch.setattr(onnxruntime_session.ctypes, "CDLL", load)
    with pytest.raises(BackendError, match=rf"can't load 'cuda' here: {cause}.*'agsr\[gpu\]'"):
        open_session(path, "cuda")
    loaded.append("CUDAExecutionProvider")
    with pytest.raises(ModelError, match="default CPU EP"):
        open_session(path, "cuda")


@pytest.mark.skipif(
    "AzureExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="this ONNX Runtime has the CPU's provider alone",
)
@pytest.mark.parametrize("runs_on_cpu", [True, False])
def test_a_graph_that_the_real_provider_cannot_run_is_a_model_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    runs_on_cpu: bool,
) -> None:
    kind = onnx.TensorProto.FLOAT if runs_on_cpu else onnx.TensorProto.BFLOAT16
    ports = [helper.make_tensor_value_info(name, kind, [1, 3, 8, 8]) for name in "xy"]
    weights = helper.make_tensor("w", kind, [3, 3, 1, 1], [1.0] * 9)
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], [weights])
    opset = helper.make_opsetid("", 22)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), tmp_path / "a.onnx")
    monkeypatch.setitem(PROVIDERS, "cuda", Provider("AzureExecutionProvider"))
    with pytest.raises(ModelError, match=r"a\.onnx: ONNX Runtime can't load it on 'cuda'"):
        open_session(tmp_path / "a.onnx", "cuda")
    assert capfd.readouterr() == ("", "")


def test_a_path_is_no_fault_of_the_gpu(use: Callable[[Any], Any], tmp_path: Path) -> None:
    path = tmp_path / "cudnn" / "libcu.onnx"
    path.parent.mkdir()
    path.touch()
    use(Runtime(f"INVALID_PROTOBUF : Load model from {path} failed"))
    with pytest.raises(ModelError, match="INVALID_PROTOBUF"):
        open_session(path, "cuda")


def test_an_unknown_provider_is_a_wrong_request(path: Path) -> None:
    with pytest.raises(BackendRequestError, match="no provider named 'magic'; known: cpu, cuda"):
        open_session(path, "magic")


def test_a_file_that_is_at_fault_is_a_model_error_on_a_gpu_too(
    use: Callable[[Any], Any], path: Path
) -> None:
    use(Runtime("INVALID_PROTOBUF : Load model failed"))
    with pytest.raises(ModelError, match=r"a\.onnx: ONNX Runtime can't load it on 'cuda'"):
        open_session(path, "cuda")


def test_the_real_runtime_accepts_the_argument_and_reports_the_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="INVALID_PROTOBUF"):
        open_session(tmp_path / "bad.onnx", "cpu")
    assert capfd.readouterr().out == ""


def test_a_gpu_that_fails_lets_the_cpu_step_in_where_that_is_allowed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = OrtBackend

    def opened(path: Path, *, provider: str, **options: Any) -> OrtBackend:
        if provider == "cuda":
            monkeypatch.setattr(
                onnxruntime_session, "require", lambda *_, **__: Runtime("CUDA failure 100")
            )
            try:
                return real(path, provider=provider, **options)
            finally:
                monkeypatch.setattr(onnxruntime_session, "require", lambda *_, **__: onnxruntime)
        return real(path, provider=provider, **options)

    monkeypatch.setattr("agsr.engines.runtimes.onnxruntime_backend.OrtBackend", opened)
    with open_backend("ort", "psnr", steps=1, provider="cuda", allow_fallback=True) as backend:
        assert backend.info.device == "CPUExecutionProvider"
    assert "CUDA failure 100" in caplog.text


@pytest.mark.parametrize(
    ("devices", "index", "number"),
    [((CPU, GPU), 0, 1), ((GPU, CPU), 0, 0), ((CPU, GPU, GPU), 1, 2), ((CPU,), 0, 0)],
)
def test_a_plugin_provider_gets_its_gpu(
    use: Callable[[Any], Any],
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    devices: tuple[Any, ...],
    index: int,
    number: int,
) -> None:
    ort = use(Runtime(devices=devices))
    monkeypatch.setattr(onnxruntime_session, "_plugin", lambda _: ModuleType("plugin"))
    open_session(path, "tensorrt-rtx", device=index)
    ((_, (device,), _), _) = ort.calls
    assert device.number == number
    with pytest.raises(BackendError, match="no GPU cuda:7 for NvTensorRTRTXExecutionProvider"):
        open_session(path, "tensorrt-rtx", device=7)
