"""Networks compiled by OpenVINO, with the interface of ONNX Runtime's sessions.

This uses OpenVINO's own package, not its plugin for ONNX Runtime, which supports only Intel's
processors: AMD's have bf16 units, too. `agsr.engines.runtimes.compiled_cache` caches the result.
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

from agsr.contract import CHANNELS, INPUT_NAME, OUTPUT_NAME
from agsr.engines.places import RUNTIMES
from agsr.engines.runtimes.compiled_cache import CompiledCache
from agsr.errors import (
    BackendError,
    BackendRequestError,
    MissingDependencyError,
    ModelError,
)
from agsr.pretrained import require_file, sha256
from agsr.system.cpu import features_known, hidden, is_limited, multiplies_bf16, thread_count
from agsr.system.optional_import import require

_DEVICE = "CPU"
_HINT = "INFERENCE_PRECISION_HINT"
_HINTS = {"fp32": "f32", "fp16": "f16"}
"""OpenVINO's names of precisions, where they differ from ours."""
_TYPES = {"f32": "tensor(float)", "f16": "tensor(float16)", "u8": "tensor(uint8)"}


@dataclass(frozen=True)
class TensorSpec:
    """An input or output, described like ONNX Runtime's ``NodeArg``."""

    name: str
    """Name of the tensor."""
    type: str
    """Element type, like ``tensor(float)``."""
    shape: tuple[int | None, ...]
    """Sizes, None where any is accepted; empty if the rank is dynamic, too."""


class OpenVinoSession:
    """A compiled network with those methods of ONNX Runtime's ``InferenceSession`` that we use.

    Only one thread at a time may run it.

    Args:
        compiled: OpenVINO's ``CompiledModel``.
    """

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._request = compiled.create_infer_request()

    def get_inputs(self) -> list[TensorSpec]:
        """Describe the inputs."""
        return [_spec(tensor) for tensor in self._compiled.inputs]

    def get_outputs(self) -> list[TensorSpec]:
        """Describe the outputs."""
        return [_spec(tensor) for tensor in self._compiled.outputs]

    def run(
        self, names: Sequence[str] | None, feeds: Mapping[str, NDArray[Any]]
    ) -> list[NDArray[Any]]:
        """Run the network.

        Args:
            names: Names of outputs; None means all.
            feeds: Inputs by name.

        Returns:
            Copies of the outputs.

        Raises:
            RuntimeError: It failed; the message is OpenVINO's reason.
        """
        try:
            self._request.infer(dict(feeds), share_inputs=True, share_outputs=True)
        except RuntimeError as error:
            raise RuntimeError(_reason(error)) from None
        chosen = [output.name for output in self.get_outputs()] if names is None else names
        # Copies, since the next run writes to the same memory.
        return [np.array(self._request.get_tensor(name).data) for name in chosen]


def open_compiled(
    path: Path,
    precision: str = "fp32",
    threads: int | None = None,
    *,
    cached: bool = False,
    device: str = "cpu",
    size: tuple[int, int] | None = None,
) -> OpenVinoSession:
    """Compile a graph for this processor, or another device of Intel's.

    Args:
        path: ONNX file.
        precision: Arithmetic for an fp32 graph, fp32 or bf16. Other graphs have their own; types
            that this processor has no units for are computed in fp32.
        threads: At most one per core; None means one per core.
        cached: Use the user's cache of compiled networks.
        device: ``cpu``, ``gpu``, ``gpu:1`` or ``npu``. GPUs and NPUs compute fp16 graphs in fp16.
        size: Height and width of every input; None for any. NPUs require it.

    Raises:
        ModelError: The file can't be compiled.
        BackendError: OpenVINO can't run here, or not in this precision; or it has no such device.
        MissingDependencyError: openvino is not installed.
    """
    require_file(path)
    choices = ("fp32", "fp16") if device != "cpu" else RUNTIMES["openvino"].precisions
    if precision not in choices:
        raise BackendRequestError(
            f"openvino on '{device}' runs in {' or '.join(choices)}, not in {precision}"
        )
    name = _device_name(device)
    core, runtime = _runtime(name)
    if precision == "bf16" and "BF16" not in runtime["capabilities"]:
        raise _unsupported(precision, "f32")
    options = {"PERFORMANCE_HINT": "LATENCY", _HINT: _HINTS.get(precision, precision)}
    if name == _DEVICE:
        options |= _cpu_options(threads)

    def load(cache: Path | None = None) -> OpenVinoSession:
        cache_options = {"CACHE_DIR": str(cache)} if cache else {}
        try:
            graph = str(path) if size is None else _of_size(core, path, size)
            compiled = core.compile_model(graph, name, {**options, **cache_options})
        except RuntimeError as error:
            raise ModelError(f"{path}: OpenVINO can't compile it: {_reason(error)}") from None
        found = compiled.get_property(_HINT).get_type_name()
        if found != options[_HINT]:
            raise _unsupported(precision, found)
        return OpenVinoSession(compiled)

    if not cached:
        return load()
    facts = {"onnx": sha256(path), "options": options, **runtime}
    if name != _DEVICE:
        facts |= {"device": name, "size": size}
    return CompiledCache().get(facts, load)


def _cpu_options(threads: int | None) -> dict[str, str]:
    options = {
        "ENABLE_CPU_PINNING": "NO",  # reading and writing files need the same cores
        # Shapes whose code is cached; by default so many that every new shape costs 1.5 MB.
        "CPU_RUNTIME_CACHE_CAPACITY": "256",
    }
    if threads is not None or is_limited():
        options["INFERENCE_NUM_THREADS"] = str(thread_count(threads))
    return options


def _device_name(device: str) -> str:
    """Return OpenVINO's name of a device.

    >>> _device_name("cpu"), _device_name("gpu:1")
    ('CPU', 'GPU.1')
    """
    return device.upper().replace(":", ".")


def _of_size(core: Any, path: Path, size: tuple[int, int]) -> Any:
    """Read a graph and fix its input to one picture of this height and width."""
    model = core.read_model(str(path))
    model.reshape({INPUT_NAME: [1, CHANNELS, *size]})
    return model


def has_device(device: str) -> bool:
    """Return True if OpenVINO finds a device here, like ``gpu``.

    Raises:
        BackendError: OpenVINO can't be loaded.
        MissingDependencyError: openvino is not installed.
    """
    return _finds(_runtime()[0], _device_name(device))


def _finds(core: Any, name: str) -> bool:
    """Return True if a core has a device; ``GPU`` means the first, which may be ``GPU.0``."""
    found: list[str] = core.available_devices
    return name in found or f"{name}.0" in found


def _unsupported(precision: str, found: str) -> BackendError:
    """Make an error: OpenVINO itself would silently compute in another precision."""
    return BackendError(
        f"OpenVINO computes in {found} here, not {precision}; use --precision "
        f"{'fp16' if found == 'f16' else 'fp32'}"
    )


def computes_bf16() -> bool:
    """Return True if OpenVINO has bf16 kernels for this processor and they are faster.

    The system's list of processor features decides, if any: OpenVINO also offers bf16 where it is
    emulated. On Windows and macOS OpenVINO decides; False if it can't be loaded.
    """
    if features_known():
        return multiplies_bf16()
    try:
        return "BF16" in capabilities()
    except (BackendError, MissingDependencyError):
        return False


def capabilities() -> list[str]:
    """List OpenVINO's precisions on this processor, by its names (``BF16``, ``INT8``).

    Raises:
        BackendError: OpenVINO can't be loaded.
        MissingDependencyError: openvino is not installed.
    """
    found: list[str] = _runtime()[1]["capabilities"]
    return found


def _runtime(device: str = _DEVICE) -> tuple[Any, dict[str, Any]]:
    """Return OpenVINO's core, and what compiled networks depend on beside graph and options."""
    try:
        openvino = require("openvino", extra="cpu", purpose="The backend 'openvino'")
        core = _core(openvino)
        if device != _DEVICE and not _finds(core, device):
            found = ", ".join(core.available_devices)
            raise BackendError(
                f"OpenVINO finds no {device} here, only {found}; install Intel's driver for it"
            )
        return core, {
            "runtime": f"openvino {openvino.get_version()}",
            "processor": core.get_property(device, "FULL_DEVICE_NAME"),
            "capabilities": _capabilities(core, device),
        }
    except (ImportError, AttributeError, RuntimeError) as error:
        raise BackendError(
            f"OpenVINO is installed, but can't be loaded: {_reason(error)}"
        ) from None


def _capabilities(core: Any, device: str) -> list[str]:
    """Return a core's capabilities; on x86-64, bf16 needs AVX-512 that isn't hidden."""
    found: list[str] = sorted(core.get_property(device, "OPTIMIZATION_CAPABILITIES"))
    return [name for name in found if not (name == "BF16" and "avx512f" in hidden())]


@cache
def _core(openvino: ModuleType) -> Any:
    """Return one core for the whole process.

    A core gives its thread a signal stack, and frees it when it is destroyed, even on another
    thread: after that, the first Ctrl-C would be a segmentation fault.
    """
    return openvino.Core()


def _spec(tensor: Any) -> TensorSpec:
    kind = tensor.get_element_type().get_type_name()
    shape = tensor.get_partial_shape()
    sizes = (
        [] if shape.rank.is_dynamic else [d.get_length() if d.is_static else None for d in shape]
    )
    return TensorSpec(_name(tensor), _TYPES.get(kind, kind), tuple(sizes))


def _name(tensor: Any) -> str:
    """Return the contract's name if the tensor has it; an adjacent cast adds a second name."""
    names: list[str] = sorted(tensor.get_names())
    return next((name for name in names if name in (INPUT_NAME, OUTPUT_NAME)), names[0])


def _reason(error: Exception) -> str:
    """Return the last line of an error of OpenVINO; the ones before refer to its source code."""
    return [type(error).__name__, *str(error).strip().splitlines()][-1]
