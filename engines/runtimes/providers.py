"""ONNX Runtime's execution providers: how each is loaded, and what it can't do.

Data flow: a provider's name → `PROVIDERS` → `provider_options` and `configure`, which
`agsr.engines.runtimes.onnxruntime_session` opens a session with. `agsr.engines.ranking` and
`agsr doctor` read from the same table what is missing here.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from agsr.contract import SizeRule
from agsr.engines.places import RUNTIMES
from agsr.engines.tensorrt.api import MODULES, is_installed
from agsr.errors import BackendError
from agsr.pretrained import sha256
from agsr.system.cache_dir import cache_folder, make_private
from agsr.system.cache_files import digest
from agsr.system.optional_import import install_command, require

STATIC = (256, 256)
"""Height and width of inputs for providers that compile a network for one size."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Provider:
    """How to load one execution provider."""

    ort_name: str
    """Its name in ONNX Runtime."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Provider options."""
    plugin: str | None = None
    """Python package that contains it as a plugin library, if it isn't built in."""
    install: str = ""
    """Command that installs it."""
    memory: str | None = None
    """Device in whose memory inputs and outputs are bound; None leaves copies to the runtime."""
    numbered: bool = False
    """Whether the option ``device_id`` selects one of several devices."""
    static: bool = False
    """Whether it compiles a network for one size, so that all inputs get that of `STATIC`."""
    cache_option: str = ""
    """Option that names a folder for compiled networks."""
    shares_cpu: bool = False
    """Whether the CPU may run nodes that it lacks: those that compute shapes, at least."""
    platform: str = ""
    """The only value of ``sys.platform`` where it exists; empty for any."""
    needs: str = ""
    """Hardware and driver, in words."""


PROVIDERS: dict[str, Provider] = {
    "cpu": Provider("CPUExecutionProvider", install=install_command("cpu")),
    "cuda": Provider(
        "CUDAExecutionProvider",
        {"use_tf32": "0"},
        install=install_command("gpu"),
        memory="cuda",
        numbered=True,
        needs="an NVIDIA GPU and its driver",
    ),
    "tensorrt-rtx": Provider(
        "NvTensorRTRTXExecutionProvider",
        plugin="onnxruntime_ep_nv_tensorrt_rtx",
        install="pip install onnxruntime-ep-nv-tensorrt-rtx",
        needs="an NVIDIA RTX GPU and its driver",
    ),
    "dml": Provider(
        "DmlExecutionProvider",
        install="pip uninstall -y onnxruntime, then pip install onnxruntime-directml",
        numbered=True,
        shares_cpu=True,
        platform="win32",
        needs="Windows and a GPU with DirectX 12",
    ),
    "coreml": Provider(
        "CoreMLExecutionProvider",
        {"ModelFormat": "MLProgram", "MLComputeUnits": "ALL", "RequireStaticInputShapes": "1"},
        install=install_command("cpu"),
        static=True,
        cache_option="ModelCacheDirectory",
        shares_cpu=True,
        platform="darwin",
        needs="macOS 12 or later",
    ),
    "migraphx": Provider(
        "MIGraphXExecutionProvider",
        install="AMD's onnxruntime-migraphx for the installed ROCm, instead of onnxruntime",
        numbered=True,
        static=True,
        cache_option="migraphx_model_cache_dir",
        shares_cpu=True,
        platform="linux",
        needs="Linux, ROCm and an AMD GPU",
    ),
}
"""Execution providers by name; the same names as ``RUNTIMES["ort"].devices``."""


def available_providers() -> list[str]:
    """List the `PROVIDERS` that this ONNX Runtime contains or has as a plugin.

    A listed provider may still lack its device or driver; opening a session shows that.
    """
    ort = require("onnxruntime", extra="cpu", purpose="ONNX Runtime")
    built_in = ort.get_available_providers()
    return [
        name
        for name, provider in PROVIDERS.items()
        if provider.ort_name in built_in or (provider.plugin and find_spec(provider.plugin))
    ]


def lack(name: str) -> str:
    """Describe what a provider lacks here, beside its GPU and driver; empty if nothing is known."""
    provider = PROVIDERS[name]
    if provider.platform not in ("", sys.platform):
        return f"needs {provider.needs}"
    if not find_spec("onnxruntime"):
        return "onnxruntime is not installed"
    return "" if name in available_providers() else "not installed"


def is_runtime_installed(runtime: str) -> bool:
    """Return True if the package of a runtime is installed.

    >>> is_runtime_installed("ort")
    True
    """
    module = RUNTIMES[runtime].module
    return bool(find_spec(module)) if module else any(map(is_installed, MODULES))


def provider_options(name: str, path: Path, device: int, version: str) -> dict[str, str]:
    """Return the options of a provider for a file.

    Args:
        name: A key of `PROVIDERS`.
        path: The ONNX file.
        device: Number of the device.
        version: That of ONNX Runtime; networks are compiled anew for another.
    """
    provider = PROVIDERS[name]
    options = dict(provider.options)
    if provider.numbered:
        options["device_id"] = str(device)
    if provider.cache_option and (folder := _cache(name, path, version)) is not None:
        options[provider.cache_option] = str(folder)
    return options


def configure(ort: Any, name: str, options: Any) -> None:
    """Set the session options that a provider requires."""
    provider = PROVIDERS[name]
    # Planning the memory of all tensors at once needs twice the memory, and is no faster; DirectML
    # rejects it, and operators that run at the same time.
    options.enable_mem_pattern = False
    if provider.shares_cpu:
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    if provider.static:
        for axis, side in (("batch", 1), *zip(("height", "width"), STATIC, strict=True)):
            options.add_free_dimension_override_by_name(axis, side)


def accepted_sizes(name: str, sizes: SizeRule) -> SizeRule:
    """Return the sizes that a network accepts on a provider; see `Provider.static`.

    >>> accepted_sizes("cpu", SizeRule(multiple=8)), accepted_sizes("coreml", SizeRule()).fixed
    (SizeRule(minimum=1, multiple=8, square=False, fixed=None), (256, 256))
    """
    if not PROVIDERS[name].static or sizes.fixed is not None:
        return sizes
    return SizeRule(fixed=STATIC)


def _cache(name: str, path: Path, version: str) -> Path | None:
    """Return the folder of a network's compiled form; None if it can't be private."""
    facts = {"provider": name, "onnx": sha256(path), "version": version, "size": STATIC}
    folder = cache_folder().absolute() / "providers" / f"{name}-{digest(facts)[:32]}"
    try:
        make_private(folder.parent)
        make_private(folder)
    except BackendError as error:
        _log.info("the compiled network is not cached: %s", error)
        return None
    return folder
