"""The ONNX Runtime backend: a self-describing ``.onnx`` file on a chosen execution provider."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from agsr.backend import Backend, BackendInfo, Batch, tells_of_memory
from agsr.contract import INPUT_NAME, OUTPUT_NAME, SCALE, ModelMetadata
from agsr.errors import BackendError, ModelError
from agsr.optional import install_command, require

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


def _openvino_hint(precision: str) -> dict[str, str]:
    return {"load_config": json.dumps({"CPU": {"INFERENCE_PRECISION_HINT": precision}})}


PROVIDERS: dict[str, Provider] = {
    "cpu": Provider("CPUExecutionProvider"),
    "openvino": Provider(
        "OpenVINOExecutionProvider",
        {"fp32": _openvino_hint("f32"), "bf16": _openvino_hint("bf16")},
        plugin="onnxruntime_ep_openvino",
        install="pip install onnxruntime-ep-openvino",
    ),
    "cuda": Provider(
        "CUDAExecutionProvider",
        {"fp32": {"use_tf32": "0"}},
        install=install_command("gpu"),
        memory="cuda",
    ),
}
"""Execution providers by the name users give."""


class OrtBackend(Backend):
    """Runs an ONNX file exported by ``agsr export``.

    Args:
        path: ONNX file.
        provider: A key of `PROVIDERS`. Another one is never used in its place.
        precision: Arithmetic for an fp32 graph, one of the provider's `Provider.precisions`. An
            fp16 graph keeps its own.
        threads: Threads of the CPU provider, at most one per core; None means one per core.

    Raises:
        ModelError: The file is not an ONNX model that keeps the contract.
        BackendError: The provider isn't available here, or can't do what is asked.
        MissingDependencyError: onnxruntime is not installed.
    """

    def __init__(
        self,
        path: Path,
        *,
        provider: str = "cpu",
        precision: str = "fp32",
        threads: int | None = None,
    ) -> None:
        self._session = open_session(path, provider, precision, threads)
        metadata = ModelMetadata.from_properties(
            self._session.get_modelmeta().custom_metadata_map, str(path)
        )
        _check_ports(self._session, path)
        self._memory = PROVIDERS[provider].memory
        self._bound_output: Any = None
        self.info = BackendInfo(
            name="ort",
            device=PROVIDERS[provider].ort_name,
            precision=precision if metadata.precision == "fp32" else metadata.precision,
            steps=metadata.steps,
            receptive_radius=metadata.receptive_radius,
            model=str(path),
            weights_hash=metadata.weights_hash,
        )

    def _run(self, lr: Batch) -> Batch:
        try:
            if self._memory:
                return self._run_bound(lr, self._memory)
            sr: Batch = self._session.run([OUTPUT_NAME], {INPUT_NAME: lr})[0]
        except Exception as error:  # ONNX Runtime raises its own types, derived from Exception
            reason = str(error).splitlines()[0]
            if tells_of_memory(error):
                raise MemoryError(reason) from None
            raise BackendError(
                f"{self.info.device} failed on an input of {lr.shape}: {reason}"
            ) from None
        return sr

    def _run_bound(self, lr: Batch, device: str) -> Batch:
        """Run on a device's memory: one copy in, one out; the output is used again by shape."""
        self._session.run_with_iobinding(self._bind(lr, device))
        # On the CPU, numpy() may be a view of the memory that the next run writes to.
        return np.array(self._bound_output.numpy())

    def _bind(self, lr: Batch, device: str) -> Any:
        batch, channels, height, width = lr.shape
        shape = [batch, channels, height * SCALE, width * SCALE]
        values = require("onnxruntime", extra="gpu", purpose="I/O binding").OrtValue
        if self._bound_output is None or self._bound_output.shape() != shape:
            self._bound_output = values.ortvalue_from_shape_and_type(shape, np.float32, device, 0)
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(INPUT_NAME, values.ortvalue_from_numpy(lr, device, 0))
        binding.bind_ortvalue_output(OUTPUT_NAME, self._bound_output)
        return binding

    def resident(self, lr: Batch) -> Callable[[], object]:
        """See `Backend.resident`; ONNX Runtime waits for the device by itself."""
        if not self._memory:
            return super().resident(lr)
        binding = self._bind(lr, self._memory)
        return partial(self._session.run_with_iobinding, binding)


def available_providers() -> list[str]:
    """Providers of `PROVIDERS` that this installation of ONNX Runtime lists or has as a plugin.

    A listed provider may still lack its device or driver: open a session to know.
    """
    ort = require("onnxruntime", extra="cpu", purpose="ONNX Runtime")
    built_in = ort.get_available_providers()
    return [
        name
        for name, provider in PROVIDERS.items()
        if provider.ort_name in built_in or _plugin(provider) is not None
    ]


def open_session(
    path: Path,
    provider: str,
    precision: str,
    threads: int | None = None,
    *,
    exclusive: bool = True,
) -> Any:
    """A session for any graph, on the provider that was asked for.

    Args:
        path: ONNX file.
        provider: A key of `PROVIDERS`.
        precision: Arithmetic for an fp32 graph, one of the provider's `Provider.precisions`.
        threads: Threads of the CPU provider, at most one per core; None means one per core.
        exclusive: Whether the provider has to run every node. If not, the CPU may take those that
            the provider can't.

    Raises:
        ModelError: The file can't be loaded.
        BackendError: The provider isn't available here, or can't do what is asked.
        MissingDependencyError: onnxruntime is not installed.
    """
    ort = require("onnxruntime", extra="cpu", purpose="The ONNX Runtime backend")
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    _check_request(provider, precision, threads)
    options = ort.SessionOptions()
    options.intra_op_num_threads = _threads(threads)
    options.log_severity_level = _QUIET
    if provider != "cpu" and exclusive:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return _open_session(ort, path, provider, precision, options)


def _check_request(provider: str, precision: str, threads: int | None) -> None:
    if provider not in PROVIDERS:
        raise BackendError(f"no provider named '{provider}'; known: {', '.join(PROVIDERS)}")
    known = PROVIDERS[provider].precisions
    if precision not in known:
        raise BackendError(
            f"provider '{provider}' runs fp32 graphs in {' or '.join(known)}, not in {precision}"
        )
    if threads is not None and provider != "cpu":
        raise BackendError(f"--threads is for the provider 'cpu', not for '{provider}'")


def _open_session(ort: Any, path: Path, name: str, precision: str, options: Any) -> Any:
    provider = PROVIDERS[name]
    plugin, provider_options = _plugin(provider), dict(provider.precisions[precision])
    arguments: dict[str, Any] = {}
    if plugin is not None:
        _add_plugin_devices(ort, provider, plugin, options, provider_options)
    elif provider.ort_name in ort.get_available_providers():
        arguments["providers"] = [(provider.ort_name, provider_options)]
    else:
        raise BackendError(f"provider '{name}' is not installed; add it with: {provider.install}")
    try:
        session = ort.InferenceSession(str(path), options, **arguments)
    except Exception as error:  # ONNX Runtime raises its own types, derived from Exception
        reason = str(error).splitlines()[0]
        raise ModelError(f"{path}: ONNX Runtime can't load it on '{name}': {reason}") from None
    if provider.ort_name not in session.get_providers():
        got = ", ".join(session.get_providers())
        raise BackendError(f"asked for provider '{name}', but ONNX Runtime fell back to {got}")
    return session


def _plugin(provider: Provider) -> Any | None:
    try:
        return importlib.import_module(provider.plugin) if provider.plugin else None
    except ImportError:
        return None


def _add_plugin_devices(
    ort: Any, provider: Provider, plugin: Any, options: Any, provider_options: dict[str, str]
) -> None:
    """Register a plugin library once per process and choose its CPU device, or its only one."""
    names = {device.ep_name for device in ort.get_ep_devices()}
    try:
        if provider.ort_name not in names:
            ort.register_execution_provider_library(provider.ort_name, plugin.get_library_path())
    except Exception as error:  # ONNX Runtime raises its own types, derived from Exception
        reason = str(error).splitlines()[0]
        raise BackendError(
            f"this ONNX Runtime ({ort.__version__}) can't load {provider.plugin}: {reason}"
        ) from None
    devices = [d for d in ort.get_ep_devices() if d.ep_name == provider.ort_name]
    on_cpu = [d for d in devices if d.device.type == ort.OrtHardwareDeviceType.CPU]
    if not devices:
        raise BackendError(f"{provider.ort_name} finds no device on this machine")
    options.add_provider_for_devices((on_cpu or devices)[:1], provider_options)


def _threads(asked: int | None) -> int:
    """Threads for the CPU provider; more than cores would only get in each other's way."""
    cores = os.cpu_count() or 1
    return min(asked or cores, cores)


def _check_ports(session: Any, path: Path) -> None:
    ports = [*session.get_inputs(), *session.get_outputs()]
    found = [(port.name, port.type, len(port.shape)) for port in ports]
    expected = [(name, "tensor(float)", 4) for name in (INPUT_NAME, OUTPUT_NAME)]
    if found != expected:
        raise ModelError(
            f"{path}: its inputs and outputs are {found}; expected {INPUT_NAME} → {OUTPUT_NAME}, "
            "float32 of rank 4"
        )
