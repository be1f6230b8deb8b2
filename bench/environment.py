"""What this machine has: versions, devices, and which backends really run. For ``agsr doctor``."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from agsr._version import __version__
from agsr.backend import Backend
from agsr.contract import CHANNELS
from agsr.engines.ort_session import PROVIDERS, available_providers
from agsr.engines.select import open_backend
from agsr.engines.trt_api import MODULES
from agsr.errors import AgsrError
from agsr.optional import install_command

PACKAGES = {
    "numpy": "",
    "opencv-python-headless": "",
    "onnxruntime": "cpu",
    "onnxruntime-gpu": "gpu",
    "onnxruntime-ep-openvino": "cpu",
    "torch": "train",
    "onnx": "train",
    "pooch": "bench",
    "onnxscript": "train",
    "safetensors": "train",
    "tensorboard": "train",
    "tensorrt": "gpu",
    "tensorrt-rtx-cu13": "rtx",
    "cuda-bindings": "gpu",
    "pycuda": "pycuda",
}
"""Distributions that matter, and the extra that brings each."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the doctor's report."""

    name: str
    """What was looked at."""
    found: str
    """What was found."""
    ok: bool
    """Whether it is there and works."""
    advice: str = ""
    """Command that adds what is missing."""


def machine() -> list[Check]:
    """The interpreter, the processor and its matrix units."""
    flags = sorted(_cpu_flags() & {"avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8"})
    return [
        Check(name="python", found=platform.python_version(), ok=True),
        Check(name="platform", found=platform.platform(), ok=True),
        Check(name="processor", found=_processor(), ok=True),
        Check(name="cores", found=str(os.cpu_count()), ok=True),
        Check(name="cpu features", found=" ".join(flags) or "unknown", ok=True),
    ]


def packages() -> list[Check]:
    """Installed versions of `PACKAGES`; onnxruntime and onnxruntime-gpu exclude each other."""
    found = {name: _version(name) for name in PACKAGES}
    return [
        *(_package(name, version) for name, version in found.items()),
        *([_clash()] if found["onnxruntime"] and found["onnxruntime-gpu"] else []),
    ]


def backends() -> Iterator[Check]:
    """Run the shipped weights once on every provider and device that claims to be there."""
    if find_spec("onnxruntime"):
        present = available_providers()
        for name in PROVIDERS:
            if name in present:
                yield _trial(f"ort {name}", partial(open_backend, "ort", provider=name))
            else:
                yield Check(
                    name=f"ort {name}", found="absent", ok=False, advice=PROVIDERS[name].install
                )
    if find_spec("torch"):
        yield _trial("torch cpu", partial(open_backend, "torch"))
        if _cuda():
            yield _trial("torch cuda", partial(open_backend, "torch", device="cuda"))
    if any(map(find_spec, MODULES.values())):
        yield _trial("trt", partial(open_backend, "trt"))


def describe() -> dict[str, str]:
    """The machine, the versions and the commit, for the record of a measurement."""
    gpus = {"gpu": ", ".join(_gpus())} if _gpus() else {}
    checks = {check.name: check.found for check in (*machine(), *packages()) if check.ok}
    commit = commit_of(Path(__file__).resolve().parents[1])
    return {**checks, **gpus, "agsr": __version__, **({"commit": commit} if commit else {})}


def commit_of(root: Path) -> str:
    """The commit of the repository whose top folder this is; empty for any other folder.

    An installed package may lie deep in someone else's repository, which tells nothing about it.
    """
    git = ("git", "-C", str(root))
    top = output_of(*git, "rev-parse", "--show-toplevel")
    if not top or Path(top).resolve() != root.resolve():
        return ""
    return output_of(*git, "describe", "--always", "--dirty")


def _gpus() -> list[str]:
    query = "--query-gpu=name,driver_version"
    return output_of("nvidia-smi", query, "--format=csv,noheader").splitlines()


def output_of(*command: str) -> str:
    """What a program prints; empty if it isn't there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _trial(name: str, load: Callable[[], Backend]) -> Check:
    """Load a backend and upscale 64x64 pixels twice; the second time is reported."""
    lr = np.full((1, CHANNELS, 64, 64), 0.5, dtype=np.float32)
    try:
        with load() as backend:
            backend.upscale(lr)
            started = time.perf_counter()
            backend.upscale(lr)
            milliseconds = (time.perf_counter() - started) * 1000
    except AgsrError as error:
        return Check(name=name, found=str(error), ok=False)
    info = backend.info
    return Check(
        name=name,
        found=f"runs: {info.device}, {info.steps} steps, 64x64 in {milliseconds:.0f} ms",
        ok=True,
    )


def _package(name: str, version: str) -> Check:
    extra = PACKAGES[name]
    advice = "" if version or not extra else install_command(extra)
    return Check(name=name, found=version or "absent", ok=bool(version), advice=advice)


def _clash() -> Check:
    return Check(
        name="onnxruntime clash",
        found="onnxruntime and onnxruntime-gpu overwrite each other's files",
        ok=False,
        advice="pip uninstall -y onnxruntime onnxruntime-gpu, then " + install_command("cpu"),
    )


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _processor() -> str:
    return _cpu_info("model name") or platform.processor() or platform.machine()


def _cpu_flags() -> set[str]:
    return set(_cpu_info("flags").split())


def _cpu_info(field: str) -> str:
    """A line of the first processor's description, on Linux."""
    try:
        with Path("/proc/cpuinfo").open(encoding="ascii", errors="replace") as file:
            line = next((line for line in file if line.startswith(field)), "")
    except OSError:
        return ""
    return line.partition(":")[2].strip()
