"""What this machine has: versions, devices, and which backends really run. For ``agsr doctor``."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from agsr._version import __version__
from agsr.backend import Backend
from agsr.bench.installed import Check, packages
from agsr.contract import CHANNELS
from agsr.engines.open import open_backend
from agsr.engines.places import Place
from agsr.engines.ranking import NO_DRIVER, OTHER_PLACES, PLACES, missing_requirement
from agsr.engines.runtimes.compiled_cache import CompiledCache
from agsr.engines.runtimes.openvino_session import computes_bf16, has_device
from agsr.engines.runtimes.providers import PROVIDERS, available_providers
from agsr.engines.tensorrt.api import MODULES, is_installed
from agsr.engines.tensorrt.progress import Report
from agsr.engines.timings import Timings
from agsr.errors import AgsrError, BackendError
from agsr.pretrained import DEFAULT_WEIGHTS
from agsr.system.cache_dir import CACHE_VARIABLE, cache_folder, make_private
from agsr.system.cpu import (
    ISA_VARIABLE,
    features,
    features_known,
    hidden,
    is_limited,
    memory,
    processor,
    thread_count,
)
from agsr.system.optional_import import install_command

Building = Callable[[str], AbstractContextManager["Report | None"]]
"""From what is built to a context that shows the progress of its builds, and may cancel them."""

_ENGINE = f"building an engine of {DEFAULT_WEIGHTS}"


def _unseen(_: str) -> AbstractContextManager[Report | None]:
    return nullcontext()


def machine() -> list[Check]:
    """The interpreter, the processor with its vector and matrix units, and the memory."""
    amount = memory()
    level = os.environ.get(ISA_VARIABLE)
    limited = f" (more is hidden by {ISA_VARIABLE}={level})" if hidden() else ""
    return [
        Check(name="python", found=platform.python_version(), ok=True),
        Check(name="platform", found=platform.platform(), ok=True),
        Check(name="processor", found=processor(), ok=True),
        Check(name="cores", found=_cores(), ok=True),
        Check(name="cpu features", found=(" ".join(features()) or "unknown") + limited, ok=True),
        Check(name="bf16 units", found=_bf16_units(), ok=True),
        Check(name="memory", found=f"{amount / 2**30:.1f} GiB" if amount else "unknown", ok=True),
    ]


def _bf16_units() -> str:
    """By the system's list of features; where there is none, by what OpenVINO offers."""
    if computes_bf16():
        return "yes" if features_known() else "OpenVINO offers bf16"
    return "none found, so bf16 would be emulated, and slow"


def _cores() -> str:
    """The CPUs that this process may use, and of how many."""
    usable, all_cpus = thread_count(None), os.cpu_count()
    return f"{usable} of {all_cpus} usable" if is_limited() else str(all_cpus)


def caches() -> Iterator[Check]:
    """Return the cache folder, and whether compiled networks can be stored in it."""
    compiled = CompiledCache()
    try:
        make_private(compiled.folder)
        writable = os.access(compiled.folder, os.W_OK)
    except BackendError as error:
        yield Check(name="cache folder", found=str(error), ok=False)
        return
    found = f"{cache_folder()}" if writable else f"{cache_folder()} can't be written"
    advice = (
        ""
        if writable
        else f"set {CACHE_VARIABLE} to another folder; without one, starts are slower"
    )
    yield Check(name="cache folder", found=found, ok=writable, advice=advice)
    timings = Timings.load()
    yield Check(
        name="measured times",
        found=f"of {timings.measured}" if timings else "none for this machine and these versions",
        ok=timings is not None,
        advice="" if timings else "agsr doctor --measure",
    )


def choice(building: Building = _unseen) -> Iterator[Check]:
    """What ``--backend auto`` takes and why; by measured times, for a small image too.

    Args:
        building: Shows the progress of engines that are built.
    """
    yield _chosen("auto", None, building)
    if Timings.load():
        yield _chosen("auto, one small image", 1 << 14, building)


def _chosen(name: str, work: int | None, building: Building) -> Check:
    try:
        with building(_ENGINE) as progress:
            backend = open_backend(work=work, progress=progress)
        with backend:
            info = backend.info
    except AgsrError as error:
        return Check(name=name, found=str(error), ok=False)
    return Check(name=name, found=f"{info.summary}: {info.reason}", ok=True)


def backends(building: Building = _unseen) -> Iterator[Check]:
    """Run the shipped weights once on every place that claims to be there.

    Args:
        building: Shows the progress of engines that are built.
    """
    for place in PLACES:
        lack = missing_requirement(place)
        if lack:
            yield Check(name=_shown(place), found=lack, ok=False, advice=_advice(place, lack))
        else:
            yield _trial(place, building)
    if find_spec("onnxruntime") and "tensorrt-rtx" in available_providers():
        yield _trial(Place("ort", "tensorrt-rtx"), building)
    yield from other_backends(building)


def other_backends(building: Building = _unseen) -> Iterator[Check]:
    """Run the shipped weights once on every GPU that isn't NVIDIA's, or return what is missing.

    Args:
        building: As for `backends`.
    """
    for place in OTHER_PLACES:
        if lack := missing_requirement(place) or _missing_device(place):
            yield Check(name=_shown(place), found=lack, ok=False, advice=_advice(place, lack))
        else:
            yield _trial(place, building)


def _missing_device(place: Place) -> str:
    """Return what a device of OpenVINO lacks; empty if it is there."""
    if place.runtime != "openvino":
        return ""
    try:
        return "" if has_device(place.kind) else f"OpenVINO finds no {place.kind.upper()}"
    except AgsrError as error:
        return str(error)


def _shown(place: Place) -> str:
    """A place's name in the report."""
    alone = place in (Place("trt"), Place("openvino"))
    return place.runtime if alone else f"{place.runtime} {place.device}"


def _advice(place: Place, lack: str) -> str:
    """What would add a place that lacks something; empty if nothing can be installed."""
    if lack == NO_DRIVER:
        return "for an NVIDIA GPU, install its driver first"
    if lack.startswith("needs "):
        return ""  # another system
    if place.runtime == "trt":
        return "" if any(map(is_installed, MODULES)) else install_command("rtx")
    if place.runtime == "ort":
        return PROVIDERS[place.kind].install
    if place.kind in ("gpu", "npu") and find_spec("openvino"):
        return f"for an Intel {place.kind.upper()}, install its driver"
    if place.runtime == "torch" and find_spec("torch"):
        return "install torch with CUDA: https://pytorch.org/get-started/locally"
    return install_command("train" if place.runtime == "torch" else "cpu")


def _load(place: Place, building: Building) -> Backend:
    """The shipped weights on a place: on TensorRT, the very engine that ``agsr infer`` runs."""
    with building(_ENGINE) as progress:
        return open_backend(
            place.runtime,
            provider=place.kind if place.runtime == "ort" else None,
            device=place.device if place.runtime in ("torch", "openvino") else None,
            precision=_trial_precision(place),
            progress=progress,
        )


def _trial_precision(place: Place) -> str:
    if place.kind == "npu":
        return "fp16"
    return "fp32" if place.runtime == "torch" or place.kind == "gpu" else "auto"


def describe() -> dict[str, str]:
    """The machine, the versions and the commit, for the record of a measurement."""
    gpus = {"gpu": ", ".join(_gpus())} if _gpus() else {}
    checks = {check.name: check.found for check in (*machine(), *packages()) if check.ok}
    commit = commit_of(Path(__file__).resolve().parents[1])
    return {**checks, **gpus, "agsr": __version__, **({"commit": commit} if commit else {})}


def commit_of(root: Path) -> str:
    """The commit of the repository whose top folder this is; empty for any other folder.

    An installed package may lie deep in someone else's repository, which says nothing about it.
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


def _trial(place: Place, building: Building) -> Check:
    """Load a backend and upscale 64x64 pixels twice; the second time is reported."""
    name = _shown(place)
    lr = np.full((1, CHANNELS, 64, 64), 0.5, dtype=np.float32)
    try:
        with _load(place, building) as backend:
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
