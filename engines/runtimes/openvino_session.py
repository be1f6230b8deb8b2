"""Networks compiled by OpenVINO, driven as the sessions of ONNX Runtime are.

OpenVINO's own package, and not its plugin for ONNX Runtime, which serves Intel's processors only:
AMD's multiply bf16, too. What is compiled is kept by `agsr.engines.runtimes.compiled_cache`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agsr.contract import INPUT_NAME, OUTPUT_NAME
from agsr.engines.runtimes.compiled_cache import CompiledCache
from agsr.errors import (
    BackendError,
    BackendRequestError,
    MissingDependencyError,
    ModelError,
    UnknownWeightsError,
)
from agsr.pretrained import missing_file, sha256
from agsr.system.cpu import features_known, hidden, is_limited, multiplies_bf16, thread_count
from agsr.system.optional_import import require

PRECISIONS: Mapping[str, str] = {"fp32": "f32", "bf16": "bf16"}
"""Arithmetic that an fp32 graph can run in, with OpenVINO's names."""

_DEVICE = "CPU"
_HINT = "INFERENCE_PRECISION_HINT"
_TYPES = {"f32": "tensor(float)", "f16": "tensor(float16)", "u8": "tensor(uint8)"}


@dataclass(frozen=True)
class Port:
    """An input or output, in ONNX Runtime's words."""

    name: str
    """Name of the tensor."""
    type: str
    """Element type, like ``tensor(float)``."""
    shape: tuple[int | None, ...]
    """Sizes, None where any is taken; empty if not even the rank is fixed."""


class OpenVinoSession:
    """A compiled network, with the calls of ONNX Runtime's ``InferenceSession`` that we use.

    One thread at a time may run it.

    Args:
        compiled: OpenVINO's ``CompiledModel``.
    """

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._request = compiled.create_infer_request()

    def get_inputs(self) -> list[Port]:
        """What the network takes."""
        return [_port(port) for port in self._compiled.inputs]

    def get_outputs(self) -> list[Port]:
        """What it gives."""
        return [_port(port) for port in self._compiled.outputs]

    def run(
        self, names: Sequence[str] | None, feeds: Mapping[str, NDArray[Any]]
    ) -> list[NDArray[Any]]:
        """Run the network.

        Args:
            names: Of outputs; None for all.
            feeds: Inputs by name.

        Returns:
            The outputs, which stay the caller's.

        Raises:
            RuntimeError: It failed; the message is OpenVINO's reason.
        """
        try:
            self._request.infer(dict(feeds), share_inputs=True, share_outputs=True)
        except RuntimeError as error:
            raise RuntimeError(_reason(error)) from None
        chosen = [port.name for port in self.get_outputs()] if names is None else names
        # Copies: the next run writes to the same memory.
        return [np.array(self._request.get_tensor(name).data) for name in chosen]


def open_compiled(
    path: Path, precision: str = "fp32", threads: int | None = None, *, keep: bool = False
) -> OpenVinoSession:
    """Compile a graph for this processor.

    Args:
        path: ONNX file.
        precision: Arithmetic for an fp32 graph, a key of `PRECISIONS`. Other graphs have their
            own, but what this processor can't multiply is computed in fp32.
        threads: At most one per core; None means one per core.
        keep: Take what is compiled from the user's cache, and leave it there.

    Raises:
        ModelError: The file can't be compiled.
        BackendError: OpenVINO can't run here, or not in this precision.
        MissingDependencyError: openvino is not installed.
    """
    if not path.is_file():
        raise UnknownWeightsError(missing_file(path))
    if precision not in PRECISIONS:
        raise BackendRequestError(f"openvino runs in {' or '.join(PRECISIONS)}, not in {precision}")
    core, runtime = _runtime()
    if precision == "bf16" and "BF16" not in runtime["capabilities"]:
        raise _refused(precision, "f32")
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": "NO",  # reading and writing files need the same cores
        # Code for the last shapes; by default of so many that every new shape costs 1.5 MB.
        "CPU_RUNTIME_CACHE_CAPACITY": "256",
        _HINT: PRECISIONS[precision],
    }
    if threads is not None or is_limited():
        options["INFERENCE_NUM_THREADS"] = str(thread_count(threads))

    def load(cache: Path | None = None) -> OpenVinoSession:
        kept = {"CACHE_DIR": str(cache)} if cache else {}
        try:
            compiled = core.compile_model(str(path), _DEVICE, {**options, **kept})
        except RuntimeError as error:
            raise ModelError(f"{path}: OpenVINO can't compile it: {_reason(error)}") from None
        found = compiled.get_property(_HINT).get_type_name()
        if found != options[_HINT]:
            raise _refused(precision, found)
        return OpenVinoSession(compiled)

    if not keep:
        return load()
    return CompiledCache().get({"onnx": sha256(path), "options": options, **runtime}, load)


def _refused(precision: str, found: str) -> BackendError:
    """OpenVINO itself computes in another precision then, without an error."""
    return BackendError(
        f"OpenVINO computes in {found} on this processor, not {precision}; use --precision fp32"
    )


def computes_bf16() -> bool:
    """Return True if OpenVINO has bf16 kernels for this processor and they gain speed.

    The system's list of features decides where there is one: OpenVINO also offers bf16 where it is
    emulated. Elsewhere (Windows, macOS) OpenVINO is asked; False if it can't be loaded.
    """
    if features_known():
        return multiplies_bf16()
    try:
        return "BF16" in capabilities()
    except (BackendError, MissingDependencyError):
        return False


def capabilities() -> list[str]:
    """Return what OpenVINO can compute in on this processor, by its names (``BF16``, ``INT8``).

    Raises:
        BackendError: OpenVINO can't be loaded.
        MissingDependencyError: openvino is not installed.
    """
    found: list[str] = _runtime()[1]["capabilities"]
    return found


def _runtime() -> tuple[Any, dict[str, Any]]:
    """OpenVINO's core, and what a compiled network depends on beside its graph and options."""
    try:
        openvino = require("openvino", extra="cpu", purpose="The backend 'openvino'")
        core = _core(openvino)
        return core, {
            "runtime": f"openvino {openvino.get_version()}",
            "processor": core.get_property(_DEVICE, "FULL_DEVICE_NAME"),
            "capabilities": _offered(core),
        }
    except (ImportError, AttributeError, RuntimeError) as error:
        raise BackendError(
            f"OpenVINO is installed, but can't be loaded: {_reason(error)}"
        ) from None


def _offered(core: Any) -> list[str]:
    """A core's capabilities; on x86-64, bf16 needs AVX-512 that isn't hidden."""
    found: list[str] = sorted(core.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES"))
    return [name for name in found if not (name == "BF16" and "avx512f" in hidden())]


@cache
def _core(openvino: ModuleType) -> Any:
    """One for the whole process.

    A core gives its thread a stack for signals, and takes the memory back when it goes, even on
    another thread: after that, the first Ctrl-C would be a segmentation fault.
    """
    return openvino.Core()


def _port(port: Any) -> Port:
    kind = port.get_element_type().get_type_name()
    shape = port.get_partial_shape()
    sizes = (
        [] if shape.rank.is_dynamic else [d.get_length() if d.is_static else None for d in shape]
    )
    return Port(_name(port), _TYPES.get(kind, kind), tuple(sizes))


def _name(port: Any) -> str:
    """The contract's name if it is one of the tensor's; a cast beside it gives it a second one."""
    names: list[str] = sorted(port.get_names())
    return next((name for name in names if name in (INPUT_NAME, OUTPUT_NAME)), names[0])


def _reason(error: Exception) -> str:
    """The last line of OpenVINO's errors; those before tell of its source code."""
    return [type(error).__name__, *str(error).strip().splitlines()][-1]
