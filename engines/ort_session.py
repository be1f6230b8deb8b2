"""Sessions of ONNX Runtime: which execution providers there are, and how to get exactly one.

Data flow: ONNX file, name of a provider → provider options → session, whose provider is the one
that was asked for. What OpenVINO compiles is kept by `agsr.engines.compiled_cache`.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from agsr.backend import tells_of_memory
from agsr.catalog import sha256
from agsr.engines.compiled_cache import CompiledCache
from agsr.errors import BackendError, ModelError, first_line
from agsr.optional import install_command, require

_NO_KERNEL = "a bf16 graph runs on --provider openvino or --backend trt"
_QUIET = 4  # ONNX Runtime's severity "fatal": its errors are raised, there is no need to print them


@dataclass(frozen=True)
class Provider:
    """How to get one execution provider."""

    ort_name: str
    """Its name in ONNX Runtime."""
    precisions: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: {"fp32": {}})
    """Arithmetic it can run an fp32 graph in, each with the provider options that choose it."""
    plugin: str | None = None
    """Python package that carries it as a plugin library, where it isn't built in."""
    install: str = ""
    """Command that adds it."""
    memory: str | None = None
    """Device whose memory inputs and outputs are bound to; None leaves copies to the runtime."""
    refuses: Mapping[str, str] = field(default_factory=dict)
    """Precisions of graphs that it must not run, each with the reason."""
    threads: str | None = None
    """Its option for the number of threads; None where that is not ours to choose."""
    cache: str | None = None
    """Its option for a folder where it keeps what it has compiled, and finds it again."""
    device: str | None = None
    """Its device that the options are for, if they are to be nested as OpenVINO has them."""

    def options(
        self, precision: str | None, threads: int | None, cache: Path | None
    ) -> dict[str, str]:
        """Options for ONNX Runtime."""
        chosen = dict(self.precisions.get(precision or "", self.precisions["fp32"]))
        if self.threads and threads:
            chosen[self.threads] = str(_threads(threads))
        if self.cache and cache:
            chosen[self.cache] = str(cache)
        return {"load_config": json.dumps({self.device: chosen})} if self.device else chosen


PROVIDERS: dict[str, Provider] = {
    "cpu": Provider("CPUExecutionProvider"),
    "openvino": Provider(
        "OpenVINOExecutionProvider",
        {
            "fp32": {"INFERENCE_PRECISION_HINT": "f32"},
            "bf16": {"INFERENCE_PRECISION_HINT": "bf16"},
        },
        plugin="onnxruntime_ep_openvino",
        install="pip install onnxruntime-ep-openvino",
        # Measured: the same file loses 0.03 dB on Kodak24 by ONNX Runtime's cpu, 0.2 dB here.
        refuses={"int8": "its int8 convolutions lose 0.2 dB on signed values; use --provider cpu"},
        threads="INFERENCE_NUM_THREADS",
        cache="CACHE_DIR",
        device="CPU",
    ),
    "cuda": Provider(
        "CUDAExecutionProvider",
        {"fp32": {"use_tf32": "0"}},
        install=install_command("gpu"),
        memory="cuda",
    ),
    "tensorrt-rtx": Provider(
        "NvTensorRTRTXExecutionProvider",
        plugin="onnxruntime_ep_nv_tensorrt_rtx",
        install="pip install onnxruntime-ep-nv-tensorrt-rtx",
    ),
}
"""Execution providers by the name users give."""


def available_providers() -> list[str]:
    """Providers of `PROVIDERS` that this installation of ONNX Runtime lists or has as a plugin.

    A listed provider may still lack its device or driver: open a session to know.
    """
    ort = require("onnxruntime", extra="cpu", purpose="ONNX Runtime")
    built_in = ort.get_available_providers()
    return [
        name
        for name, provider in PROVIDERS.items()
        if provider.ort_name in built_in or (provider.plugin and find_spec(provider.plugin))
    ]


def open_session(
    path: Path,
    provider: str,
    precision: str | None = None,
    threads: int | None = None,
    *,
    exclusive: bool = True,
    keep_compiled: bool = False,
) -> Any:
    """A session for any graph, on the provider that was asked for.

    Args:
        path: ONNX file.
        provider: A key of `PROVIDERS`.
        precision: Arithmetic for an fp32 graph, one of the provider's `Provider.precisions`; None
            means fp32, or what another graph has.
        threads: Threads of the providers cpu and openvino, at most one per core; None means one
            per core.
        exclusive: Whether the provider has to run every node. If not, the CPU may take those that
            the provider can't.
        keep_compiled: Take what the provider compiles from the user's cache, and leave it there.

    Raises:
        ModelError: The file can't be loaded.
        BackendError: The provider isn't available here, or can't do what is asked.
        MissingDependencyError: onnxruntime is not installed.
    """
    ort = require("onnxruntime", extra="cpu", purpose="The ONNX Runtime backend")
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    _check_request(provider, precision, threads)
    chosen = PROVIDERS[provider]
    plugin = _plugin(chosen)
    device = None if plugin is None else _plugin_device(ort, chosen, plugin)
    if device is None and chosen.ort_name not in ort.get_available_providers():
        raise BackendError(f"provider '{provider}' is not installed; add it with: {chosen.install}")

    def load(cache: Path | None = None) -> Any:
        options = _session_options(ort, threads)
        if provider != "cpu" and exclusive:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        named = chosen.options(precision, threads, cache)
        if device is None:
            return _session(ort, path, provider, options, providers=[(chosen.ort_name, named)])
        options.add_provider_for_devices([device], named)
        return _session(ort, path, provider, options)

    if not (keep_compiled and chosen.cache and device):
        return load()
    facts = {
        "onnx": sha256(path),
        "runtime": f"onnxruntime {ort.__version__}",
        "options": chosen.options(precision, threads, None),
        **_facts(device),
    }
    return CompiledCache().get(facts, load)


@contextmanager
def failures_told(what: str, shape: tuple[int, ...]) -> Iterator[None]:
    """Turns ONNX Runtime's errors while it runs into ours.

    Args:
        what: What runs, for messages.
        shape: Of its input.

    Raises:
        MemoryError: The memory ran out.
        BackendError: Anything else went wrong.
    """
    try:
        yield
    except Exception as error:  # ONNX Runtime raises its own types, derived from Exception
        reason = first_line(error)
        if tells_of_memory(error):
            raise MemoryError(reason) from None
        raise BackendError(f"{what} failed on an input of {shape}: {reason}") from None


def _check_request(provider: str, precision: str | None, threads: int | None) -> None:
    if provider not in PROVIDERS:
        raise BackendError(f"no provider named '{provider}'; known: {', '.join(PROVIDERS)}")
    known = PROVIDERS[provider].precisions
    if precision not in (None, *known):
        raise BackendError(
            f"provider '{provider}' runs in {' or '.join(known)}, not in {precision}"
        )
    if threads is not None and provider != "cpu" and not PROVIDERS[provider].threads:
        raise BackendError(f"--threads is for the providers cpu and openvino, not for '{provider}'")


def _session_options(ort: Any, threads: int | None) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = _threads(threads)
    options.log_severity_level = _QUIET
    # A plan for all of a run's tensors at once takes twice the memory, and is no faster.
    options.enable_mem_pattern = False
    return options


def _session(ort: Any, path: Path, name: str, options: Any, **arguments: Any) -> Any:
    try:
        session = ort.InferenceSession(str(path), options, **arguments)
    except Exception as error:  # ONNX Runtime raises its own types, derived from Exception
        reason = first_line(error)
        hint = f"; {_NO_KERNEL}" if "NOT_IMPLEMENTED" in reason else ""
        raise ModelError(
            f"{path}: ONNX Runtime can't load it on '{name}': {reason}{hint}"
        ) from None
    if PROVIDERS[name].ort_name not in session.get_providers():
        got = ", ".join(session.get_providers())
        raise BackendError(f"asked for provider '{name}', but ONNX Runtime fell back to {got}")
    return session


def _facts(device: Any) -> dict[str, str]:
    """What a compiled network depends on beside the file: the plugin and the processor."""
    told = device.ep_metadata
    names = ("version", "FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")
    return {"provider": device.ep_name, **{name.lower(): told.get(name, "") for name in names}}


def _plugin(provider: Provider) -> Any | None:
    try:
        return importlib.import_module(provider.plugin) if provider.plugin else None
    except ImportError:
        return None


def _plugin_device(ort: Any, provider: Provider, plugin: Any) -> Any:
    """Register a plugin library once per process; its CPU device, or its only one."""
    names = {device.ep_name for device in ort.get_ep_devices()}
    try:
        if provider.ort_name not in names:
            ort.register_execution_provider_library(provider.ort_name, plugin.get_library_path())
    except Exception as error:  # ONNX Runtime raises its own types, derived from Exception
        reason = first_line(error)
        raise BackendError(
            f"this ONNX Runtime ({ort.__version__}) can't load {provider.plugin}: {reason}"
        ) from None
    devices = [d for d in ort.get_ep_devices() if d.ep_name == provider.ort_name]
    on_cpu = [d for d in devices if d.device.type == ort.OrtHardwareDeviceType.CPU]
    if not devices:
        raise BackendError(f"{provider.ort_name} finds no device on this machine")
    return (on_cpu or devices)[0]


def _threads(asked: int | None) -> int:
    """Threads of CPU code; more than cores would only get in each other's way."""
    cores = os.cpu_count() or 1
    return min(asked or cores, cores)
