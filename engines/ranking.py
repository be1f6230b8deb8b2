"""Rank the backends for ``auto``: in the default order, or by times measured on this machine.

Data flow: the installation (packages, driver, processor), the request (weights, precision, threads,
pixels to upscale) and the times of `agsr.engines.timings` → `Candidate`s, best first, each with its
reason. `agsr.engines.open` opens the first that works.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

from agsr.engines.places import RUNTIMES, Place
from agsr.engines.runtimes.openvino_session import computes_bf16
from agsr.engines.runtimes.providers import available_providers, is_runtime_installed, lack
from agsr.engines.tensorrt.cuda import check_driver
from agsr.engines.timings import Timings
from agsr.engines.weights_file import Kind, declared_precision, kind_of
from agsr.errors import BackendError
from agsr.pretrained import ONNX_SUFFIX, is_community, is_path
from agsr.system.cpu import multiplies_bf16, multiplies_int8

PLACES = tuple(
    map(Place.parse, ("trt", "ort:cuda", "torch:cuda", "openvino", "ort:cpu", "torch:cpu"))
)
"""The default order: GPUs first. OpenVINO's position is for bf16 and int8; in fp32 it is no faster
than ONNX Runtime's CPU provider, starts later, and comes after it."""

OTHER_PLACES = tuple(
    map(Place.parse, ("ort:dml", "ort:coreml", "ort:migraphx", "openvino:gpu", "openvino:npu"))
)
"""GPUs that aren't NVIDIA's: used if they are named, not by ``auto``."""

NO_DRIVER = "no NVIDIA driver"
"""What is missing on a machine without an NVIDIA GPU, or with one that isn't set up."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """A backend whose packages are installed; it may work."""

    place: Place
    """One of `PLACES`."""
    precision: str | None
    """Precision to request; None means that of the file."""
    reason: str = ""
    """Why it has this rank."""

    @property
    def name(self) -> str:
        """Place and precision: ``openvino fp32``."""
        return f"{self.place} {self.precision or ''}".rstrip()


def candidates(
    weights: str,
    precision: str | None = None,
    threads: int | None = None,
    work: int | None = None,
    timings: Timings | None = None,
) -> list[Candidate]:
    """List the backends that may run here, best first.

    Args:
        weights: A shipped name, or an ``.onnx`` file.
        precision: Precision of every candidate; None means each backend's default.
        threads: If given, only backends whose number of threads can be set are listed.
        work: LR pixels to upscale; None means many.
        timings: Times measured on this machine, used for shipped weights only; None loads the saved
            ones, if any.
    """
    places = available_places()
    if threads is not None:
        places = [place for place in places if place.takes_threads]
    if weights.endswith(ONNX_SUFFIX):
        places = [place for place in places if place.runtime != "torch"]
    if kind_of(weights) is Kind.FOREIGN_ONNX:
        places = [place for place in places if place.runtime != "trt"]
    found = [Candidate(place, precision or default_precision(place, weights)) for place in places]
    graph = declared_precision(weights) if is_path(weights) else None
    timings = Timings.load() if timings is None else timings
    if timings and not is_path(weights):  # the shipped weights were measured
        ordered = _by_time(found, timings, work)
    else:
        ordered = _by_default(found, graph)
    return sorted(ordered, key=lambda candidate: not _can_compute(candidate, graph))


def available_places() -> list[Place]:
    """List the `PLACES` without a known `missing_requirement`."""
    return [place for place in PLACES if not missing_requirement(place)]


def missing_requirement(place: Place) -> str:
    """Describe what a place lacks here, without opening it; empty if nothing is known."""
    if place.runtime == "trt" and not is_runtime_installed("trt"):
        return "TensorRT is not installed"
    if place.on_gpu and not _has_driver():
        return NO_DRIVER
    if place.runtime == "ort" and not place.on_gpu and place.kind != "cpu":
        return lack(place.kind)
    if not is_runtime_installed(place.runtime):
        return f"{RUNTIMES[place.runtime].module} is not installed"
    if place.runtime == "ort" and place.on_gpu and place.kind not in available_providers():
        return "not installed"
    if place.runtime == "torch" and place.on_gpu and not _has_cuda(find_spec("torch")):
        return "torch is built without CUDA"
    return ""


def default_precision(place: Place, weights: str) -> str | None:
    """Return the default precision of weights at a place; None for a file, which has its own.

    It is bf16 on processors with bf16 units, where it loses at most 0.02 dB and is several times as
    fast, and fp16 on TensorRT, which loses nothing.
    """
    if is_community(weights):
        return "fp32" if place.runtime == "torch" else None
    if is_path(weights) and not weights.endswith(".safetensors"):
        return None
    if place.runtime == "trt":
        return "fp16"
    if place.runtime == "openvino" and place.kind != "cpu":
        return "fp16" if place.kind == "npu" else "fp32"
    if place.runtime == "openvino":
        return "bf16" if computes_bf16() else "fp32"
    on_cpu = place.runtime == "torch" and place.kind == "cpu"
    return "bf16" if on_cpu and multiplies_bf16() else "fp32"


def _can_compute(candidate: Candidate, graph: str | None) -> bool:
    """Return False if the place is known to reject this precision on this processor.

    Args:
        candidate: The backend.
        graph: Precision of a file; None for shipped weights.
    """
    precision = graph or candidate.precision
    if candidate.place.runtime == "openvino":
        return precision != "int8" or multiplies_int8()
    return not (candidate.place.runtime == "ort" and precision == "bf16")


def _by_default(found: Sequence[Candidate], graph: str | None = None) -> list[Candidate]:
    """Sort by the default order; ``graph`` is a file's precision, for candidates without one."""
    lacking = [f"{place}: {why}" for place in PLACES if (why := missing_requirement(place))]
    places = [candidate.place for candidate in found]
    cpu = Place("ort", "cpu")

    def rank(candidate: Candidate) -> float:
        is_reduced = (candidate.precision or graph) in ("bf16", "int8")
        after_cpu = candidate.place.runtime == "openvino" and not is_reduced and cpu in places
        return places.index(cpu) + 0.5 if after_cpu else places.index(candidate.place)

    ranked = sorted(found, key=rank)
    order = [candidate.place for candidate in ranked]
    openvino = Place("openvino")
    if openvino in places and order.index(openvino) > places.index(openvino):
        lacking.append("openvino: behind ONNX Runtime, no faster in fp32 and later to start")
    reason = "; ".join(("first available in the default order", *lacking))
    return [Candidate(c.place, c.precision, reason) for c in ranked]


def _by_time(found: Sequence[Candidate], timings: Timings, work: int | None) -> list[Candidate]:
    """Sort by the estimated time for the work; unmeasured ones come last, in the default order."""
    amount = "many pixels" if work is None else f"{work} pixels"
    reason = f"fastest for {amount}, as measured here on {timings.measured}"

    def rank(candidate: Candidate) -> float:
        return timings.estimate(candidate.name, work)

    default = _by_default(found)
    measured = sorted((c for c in default if c.name in timings.times), key=rank)
    unmeasured = [c for c in default if c.name not in timings.times]
    return [Candidate(c.place, c.precision, reason) for c in measured] + unmeasured


@cache
def _has_driver() -> bool:
    try:
        check_driver()
    except BackendError:
        return False
    return True


def _has_cuda(torch: ModuleSpec | None) -> bool:
    """Return True if the installed torch is built with CUDA, judged by its files.

    Importing torch would be slow. Where its files lie elsewhere, e.g. system packages, return True:
    opening it shows the truth.
    """
    folders = (torch and torch.submodule_search_locations) or ()
    files = {path.name for folder in folders for path in Path(folder, "lib").glob("*torch_c*")}
    on_cpu = any("torch_cpu" in name for name in files)
    return not on_cpu or any("torch_cuda" in name for name in files)
