"""What users read when the driver or the GPU is not as it should be, by either layer."""

from __future__ import annotations

import re
import sys
from types import ModuleType
from typing import Any

import pytest
from cuda.bindings import driver, runtime

from agsr.engines.tensorrt import cuda as cuda_module
from agsr.engines.tensorrt import cuda_layers
from agsr.engines.tensorrt.cuda import open_cuda
from agsr.engines.tensorrt.cuda_errors import CUDA_ERRORS, explain
from agsr.engines.tensorrt.cuda_layers import BindingsCuda, PyCuda
from agsr.errors import BackendError

FAULTY = [
    ("cudaErrorNoDevice", "cuInit failed: no CUDA-capable device is detected", "finds no GPU"),
    (
        "cudaErrorInsufficientDriver",
        "CUDA driver version is insufficient for CUDA runtime version",
        "R580 or later",
    ),
    (
        "cudaErrorSystemDriverMismatch",
        "system has unsupported display driver / cuda driver combination",
        "reboot",
    ),
    (
        "cudaErrorCompatNotSupportedOnDevice",
        "forward compatibility was attempted on non supported HW",
        "cuda-compat",
    ),
    ("cudaErrorInitializationError", "cuInit failed: initialization error", "forked process"),
    ("cudaErrorSystemNotReady", "system not yet initialized", "nvidia-fabricmanager"),
    ("cudaErrorNotPermitted", "operation not permitted", "no permission to use the GPU"),
    ("cudaErrorOperatingSystem", "OS call failed or operation not supported", "/dev/nvidia"),
    (
        "cudaErrorDevicesUnavailable",
        "all CUDA-capable devices are busy or unavailable",
        "nvidia-smi",
    ),
    ("cudaErrorInvalidDevice", "invalid device ordinal", "MIG"),
    ("cudaErrorNoKernelImageForDevice", "no kernel image is available", "generation of GPU"),
    ("cudaErrorECCUncorrectable", "uncorrectable ECC error encountered", "reset the GPU"),
    ("cudaErrorUnknown", "unknown error", "nvidia_uvm"),
]


class Below:
    """Stands in for a module of ``cuda.bindings``: calls succeed, except those that are named."""

    def __init__(self, module: Any, **answers: Any) -> None:
        self._module, self._answers = module, answers
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        if not callable(found) or isinstance(found, type):
            return found

        def call(*_: object) -> tuple[Any, ...]:
            self.calls.append(name)
            answer = self._answers.get(name, ("answer",))
            if isinstance(answer, (runtime.cudaError_t, driver.CUresult)):
                return (answer, None)
            return (runtime.cudaError_t.cudaSuccess, *answer)

        return call


def _bindings(monkeypatch: pytest.MonkeyPatch, **answers: Any) -> tuple[Below, Below]:
    class Properties:
        name, major, minor = b"GPU", 8, 9

    usual = {"cudaGetDeviceProperties": (Properties(),), "cudaDriverGetVersion": (13000,)}
    usual["cudaGetDeviceCount"] = (2,)
    modules = Below(runtime, **(usual | answers)), Below(driver, **answers)
    package = ModuleType("cuda.bindings")
    vars(package).update(runtime=modules[0], driver=modules[1])
    monkeypatch.setitem(sys.modules, "cuda.bindings", package)
    cuda_layers._primary_context.cache_clear()
    return modules


@pytest.mark.parametrize(("name", "phrase", "advice"), FAULTY)
def test_every_known_error_comes_with_advice_by_either_layer(
    monkeypatch: pytest.MonkeyPatch, name: str, phrase: str, advice: str
) -> None:
    _bindings(monkeypatch, cudaGetDeviceCount=getattr(runtime.cudaError_t, name))
    with pytest.raises(BackendError, match=advice) as by_name:
        BindingsCuda()
    assert str(by_name.value).startswith(f"CUDA: {name}: ")
    _pycuda(monkeypatch, error=RuntimeError(phrase))
    with pytest.raises(BackendError, match=advice) as by_phrase:
        PyCuda()
    assert str(by_phrase.value).startswith(f"CUDA: {phrase}: ")
    assert explain(f"CUDA failure 1: {phrase} ; GPU=0").endswith(
        str(by_name.value).removeprefix(f"CUDA: {name}: ")
    )


def test_advice_is_for_one_error_only() -> None:
    for name, phrase, _ in FAULTY:
        for text in (name.lower(), phrase.lower()):
            assert (
                sum(any(pattern in text for pattern in error.patterns) for error in CUDA_ERRORS)
                == 1
            )
    assert explain("CUDA: cudaErrorIllegalAddress") == "CUDA: cudaErrorIllegalAddress"


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate`", "memory is full"),
        ("CUDNN_STATUS_NOT_INITIALIZED", "memory is full"),
        ("CUDA error: operation not permitted when stream is capturing", "stream is capturing$"),
    ],
)
def test_messages_that_resemble_a_driver_error_get_no_advice(message: str, advice: str) -> None:
    assert re.search(advice, explain(message))
    assert "forked process" not in explain(message)


def test_errors_of_the_driver_itself_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    _bindings(monkeypatch, cuInit=driver.CUresult.CUDA_ERROR_NO_DEVICE)
    with pytest.raises(BackendError, match=r"CUDA_ERROR_NO_DEVICE: .* finds no GPU"):
        BindingsCuda()
    _bindings(monkeypatch, cuDevicePrimaryCtxRetain=driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY)
    with pytest.raises(MemoryError):
        BindingsCuda()


@pytest.mark.parametrize(
    ("index", "message"), [(1, None), (2, "no GPU cuda:2 here; known: cuda:0, cuda:1")]
)
def test_a_gpu_is_chosen_by_its_number(
    monkeypatch: pytest.MonkeyPatch, index: int, message: str | None
) -> None:
    _bindings(monkeypatch)
    _pycuda(monkeypatch, count=2)
    for layer in (BindingsCuda, PyCuda):
        if message:
            with pytest.raises(BackendError, match=message):
                layer(index)
        else:
            assert layer(index).capability == "8.9"


def test_what_was_current_before_is_current_again(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime_below, driver_below = _bindings(monkeypatch)
    layer = BindingsCuda(1)
    layer.activate()
    layer.deactivate()
    assert driver_below.calls[-2:] == ["cuCtxPushCurrent", "cuCtxPopCurrent"]
    assert "cudaSetDevice" not in runtime_below.calls


def _pycuda(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None = None, count: int = 1
) -> None:
    class Device:
        def __init__(self, index: int) -> None:
            self.index = index

        count = staticmethod(lambda: count)

        def retain_primary_context(self) -> str:
            return "context"

        def name(self) -> str:
            return "GPU"

        def compute_capability(self) -> tuple[int, int]:
            return (8, 9)

    def init() -> None:
        if error:
            raise error

    below = ModuleType("pycuda.driver")
    kind = type("Error", (Exception,), {})
    vars(below).update(Error=kind, MemoryError=type("MemoryError", (kind,), {}), init=init)
    vars(below).update(Device=Device, get_driver_version=lambda: 13000)
    package = ModuleType("pycuda")
    vars(package).update(driver=below)
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", below)


def test_pycuda_without_a_gpu_or_of_another_driver_is_a_backend_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _pycuda(monkeypatch, count=0)
    with pytest.raises(BackendError, match="the NVIDIA driver is there, but it finds no GPU"):
        PyCuda()
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(BackendError, match=r"pycuda can't be loaded: .*pip install cuda-bindings"):
        PyCuda()


@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        (("cuda", "cuda.bindings", "pycuda"), "cuda.bindings 1"),
        (("cuda", "cuda.bindings"), "cuda.bindings 1"),
        (("cuda", "pycuda"), "pycuda 1"),
    ],
)
def test_nvidias_layer_comes_first(
    monkeypatch: pytest.MonkeyPatch, installed: tuple[str, ...], expected: str
) -> None:
    monkeypatch.setattr(cuda_module, "check_driver", lambda: None)
    monkeypatch.setattr(cuda_module, "find_spec", lambda name: name in installed or None)
    monkeypatch.setattr(cuda_layers, "BindingsCuda", lambda index: f"cuda.bindings {index}")
    monkeypatch.setattr(cuda_layers, "PyCuda", lambda index: f"pycuda {index}")
    assert open_cuda(1) == expected
