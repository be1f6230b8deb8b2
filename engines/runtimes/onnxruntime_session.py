"""ONNX Runtime sessions on exactly one execution provider.

Data flow: ONNX file, name of a provider → provider options → session, verified to run on the
requested provider.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import io
import logging
import os
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any
from weakref import WeakSet

from agsr.engines.places import Place
from agsr.engines.runtimes.providers import PROVIDERS, Provider, configure, provider_options
from agsr.engines.tensorrt.cuda_errors import explain
from agsr.errors import BackendError, BackendRequestError, ModelError
from agsr.pretrained import require_file
from agsr.system.cpu import thread_count
from agsr.system.optional_import import require
from agsr.system.text import first_line

_NO_KERNEL = "a bf16 graph runs on --backend openvino or trt"
_log = logging.getLogger(__name__)
_GPU_ERRORS = ("cuda failure", "cuda error", "cudnn", "cublas", "libcu", "no cuda-capable")
"""Parts of messages, lower case, whose cause is the GPU or its libraries, not the file."""

_ON_CPU = "assigned to the default CPU EP"
"""Part of ONNX Runtime's message if a session would need the CPU, too."""

_QUIET = 4  # ONNX Runtime's severity "fatal": errors are raised, so they need not be printed

_OPEN: WeakSet[Any] = WeakSet()
_INHERITED: list[Any] = []
"""Sessions of the parent process; closing one in a forked child would wait for its threads."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _INHERITED.extend(_OPEN))


def open_session(
    path: Path,
    provider: str,
    threads: int | None = None,
    *,
    exclusive: bool = True,
    device: int = 0,
) -> Any:
    """Open a session for any graph, on the requested provider.

    Args:
        path: ONNX file.
        provider: A key of `PROVIDERS`.
        threads: Threads of the provider cpu, at most one per core; None means one per core.
        exclusive: Whether the provider must run every node. If not, the CPU may run those that the
            provider can't.
        device: Number of the GPU, for a provider that has one.

    Raises:
        ModelError: The file can't be loaded.
        BackendRequestError: The provider is unknown, or has no number of threads.
        BackendError: The provider isn't available here, or can't run as requested.
        MissingDependencyError: onnxruntime is not installed.
    """
    ort = require("onnxruntime", extra="cpu", purpose="The ONNX Runtime backend")
    require_file(path)
    _check_request(provider, threads)
    chosen = PROVIDERS[provider]
    plugin = _plugin(chosen)
    found = None if plugin is None else _plugin_device(ort, chosen, plugin, device)
    if found is None and chosen.ort_name not in ort.get_available_providers():
        needs = f"; it needs {chosen.needs}" if chosen.platform else ""
        raise BackendError(
            f"provider '{provider}' is not installed{needs}; add it with: {chosen.install}"
        )
    named = provider_options(provider, path, device, ort.__version__)

    def options(alone: bool) -> Any:
        made = _session_options(ort, threads)
        configure(ort, provider, made)
        if alone:
            made.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        if found is not None:
            made.add_provider_for_devices([found], named)
        return made

    alone = exclusive and provider != "cpu" and not chosen.shares_cpu
    make = partial(_session, ort, path, provider, options, alone)
    if found is not None:
        return make()
    if provider == "cuda":
        _load_libraries(ort)
    return make(providers=[(chosen.ort_name, named)])


def _check_request(provider: str, threads: int | None) -> None:
    if provider not in PROVIDERS:
        hint = "; OpenVINO is --backend openvino" if provider == "openvino" else ""
        known = ", ".join(PROVIDERS)
        raise BackendRequestError(f"no provider named '{provider}'; known: {known}{hint}")
    Place("ort", provider).check_threads(threads)


@cache
def _load_libraries(ort: Any) -> None:
    """Load CUDA's libraries from their Python packages, where ONNX Runtime does not look.

    Versions before 1.21 can't. Their printed messages about missing libraries are logged instead:
    stdout is for data, and the session's own error names the library.
    """
    preload = getattr(ort, "preload_dlls", None)
    if preload is None:
        return
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            preload(directory="")
    except (OSError, RuntimeError) as error:
        _log.debug("CUDA's libraries: %s", error)
    for line in printed.getvalue().splitlines():
        _log.debug("CUDA's libraries: %s", line)


def _session_options(ort: Any, threads: int | None) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = thread_count(threads)
    options.log_severity_level = _QUIET
    return options


def _session(
    ort: Any,
    path: Path,
    name: str,
    options: Callable[[bool], Any],
    alone: bool,
    **arguments: Any,
) -> Any:
    """Open a session; ``options`` returns its options, given whether the provider runs alone."""
    try:
        # ONNX Runtime's fallback would print to stdout, and replace the error by one about the CPU.
        session = ort.InferenceSession(str(path), options(alone), enable_fallback=0, **arguments)
    except Exception as error:  # ONNX Runtime raises its own types, derived from Exception
        reason = first_line(error)
        text = str(error).replace(str(path), "")  # a path may contain such a phrase
        if name != "cpu" and any(sign in text.lower() for sign in _GPU_ERRORS):
            raise BackendError(f"ONNX Runtime can't use '{name}' here: {explain(reason)}") from None
        if _ON_CPU in text:
            _check_provider(ort, path, name, options(False), **arguments)
        hint = f"; {_NO_KERNEL}" if "NOT_IMPLEMENTED" in text else ""
        raise ModelError(
            f"{path}: ONNX Runtime can't load it on '{name}': {reason}{hint}"
        ) from None
    _OPEN.add(session)
    if PROVIDERS[name].ort_name not in session.get_providers():
        got = ", ".join(session.get_providers())
        raise BackendError(f"requested provider '{name}', but ONNX Runtime fell back to {got}")
    return session


def _check_provider(ort: Any, path: Path, name: str, options: Any, **arguments: Any) -> None:
    """Distinguish a provider that failed to load from a graph that it can't run alone.

    Args:
        ort: ONNX Runtime.
        path: The graph.
        name: The provider.
        options: Session options that allow the CPU to run nodes, too.
        arguments: Other arguments of the session.

    Raises:
        BackendError: The provider failed to load.
    """
    try:
        session = ort.InferenceSession(str(path), options, enable_fallback=0, **arguments)
    except Exception:  # the graph runs on no provider; the caller reports that
        return
    if PROVIDERS[name].ort_name not in session.get_providers():
        cause = _missing_library(ort, name) or "the libraries of its GPU are missing, or don't fit"
        raise BackendError(
            f"ONNX Runtime can't load '{name}' here: {cause}; "
            f"add them with: {PROVIDERS[name].install}"
        )


def _missing_library(ort: Any, name: str) -> str:
    """Return the system's message about the first missing library of a provider; empty if none."""
    folder = Path(ort.__file__).parent / "capi"
    path = next(folder.glob(f"*onnxruntime_providers_{name}.*"), None)
    try:
        ctypes.CDLL(str(path)) if path else None
    except OSError as error:
        reason = first_line(error)
        return reason if "cannot open shared object" in reason else ""
    return ""


def _plugin(provider: Provider) -> Any | None:
    try:
        return importlib.import_module(provider.plugin) if provider.plugin else None
    except ImportError:
        return None


def _plugin_device(ort: Any, provider: Provider, plugin: Any, index: int) -> Any:
    """Register a plugin library once per process; return its GPU or other device."""
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
    gpus = [d for d in devices if d.device.type == ort.OrtHardwareDeviceType.GPU]
    if not devices:
        raise BackendError(f"{provider.ort_name} finds no device on this machine")
    if index >= len(gpus or devices):
        count = len(gpus or devices)
        raise BackendError(f"no GPU cuda:{index} for {provider.ort_name}; it finds {count}")
    return (gpus or devices)[index]
