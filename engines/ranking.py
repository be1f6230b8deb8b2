"""Which backend ``auto`` takes: the usual order, or by what was measured on this machine.

Data flow: what is here (packages, driver, processor), what is asked for (weights, precision,
threads, pixels to upscale) and the times kept by `agsr.engines.timings` → `Candidate`s, best first,
each with the reason. `agsr.engines.open` opens the first that works.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

from agsr.contract import PREFIX
from agsr.engines.onnx_file.inspect import read_properties
from agsr.engines.places import Place
from agsr.engines.runtimes.onnxruntime_session import available_providers
from agsr.engines.runtimes.openvino_session import computes_bf16
from agsr.engines.tensorrt.api import MODULES
from agsr.engines.tensorrt.cuda import check_driver
from agsr.engines.timings import Timings
from agsr.errors import BackendError, MissingDependencyError, ModelError
from agsr.pretrained import ONNX_SUFFIX, is_path
from agsr.system.cpu import multiplies_bf16, multiplies_int8

PLACES = tuple(
    map(Place.parse, ("trt", "ort:cuda", "torch:cuda", "openvino", "ort:cpu", "torch:cpu"))
)
"""In the usual order: GPUs first. OpenVINO is here where it computes in bf16 or int8; in fp32 it is
no faster than ONNX Runtime's CPU provider, starts later, and comes behind it."""

_MODULES = {"ort": "onnxruntime", "openvino": "openvino", "torch": "torch"}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """A backend that is here, and may work."""

    place: Place
    """One of `PLACES`."""
    precision: str | None
    """What to ask it for; None takes that of the file."""
    reason: str = ""
    """Why it has its place in the order."""

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
    """What may run here, best first.

    Args:
        weights: A shipped name, or an ``.onnx`` file.
        precision: What all have to run in; None leaves it to them.
        threads: Given, only those remain whose threads can be told.
        work: LR pixels to upscale; None means many.
        timings: What was measured on this machine with shipped weights, and doesn't count for
            others; None takes what is kept, if anything.
    """
    places = present()
    if threads is not None:
        places = [place for place in places if place.takes_threads]
    if weights.endswith(ONNX_SUFFIX):
        places = [place for place in places if place.runtime != "torch"]
    found = [Candidate(place, precision or own_precision(place, weights)) for place in places]
    graph = _told_precision(weights) if is_path(weights) else None
    timings = Timings.kept() if timings is None else timings
    if timings and not is_path(weights):  # what was measured are the shipped weights
        ordered = _by_time(found, timings, work)
    else:
        ordered = _by_habit(found, graph)
    return sorted(ordered, key=lambda candidate: not _can_compute(candidate, graph))


def present() -> list[Place]:
    """Those of `PLACES` that `missing` finds nothing against."""
    return [place for place in PLACES if not missing(place)]


def missing(place: Place) -> str:
    """What a place lacks here, found out without opening it; empty if nothing is known to."""
    if place.runtime == "trt" and not any(map(find_spec, MODULES.values())):
        return "TensorRT is not installed"
    if place.on_gpu and not _has_driver():
        return "no NVIDIA driver"
    module = _MODULES.get(place.runtime)
    if module and not find_spec(module):
        return f"{module} is not installed"
    if place.runtime == "ort" and place.on_gpu and place.kind not in available_providers():
        return "not installed"
    if place.runtime == "torch" and place.on_gpu and not _has_cuda(find_spec("torch")):
        return "torch is built without CUDA"
    return ""


def own_precision(place: Place, weights: str) -> str | None:
    """What a place computes shipped weights in by itself; None for a file, which has its own.

    bf16 on processors that multiply it, since that loses no more than 0.02 dB and is several times
    as fast; fp16 on TensorRT, which loses nothing.
    """
    if is_path(weights) and not weights.endswith(".safetensors"):
        return None
    if place.runtime == "trt":
        return "fp16"
    if place.runtime == "openvino":
        return "bf16" if computes_bf16() else "fp32"
    on_cpu = place.runtime == "torch" and place.kind == "cpu"
    return "bf16" if on_cpu and multiplies_bf16() else "fp32"


def _can_compute(candidate: Candidate, graph: str | None) -> bool:
    """Return False if the place is known to refuse this precision on this processor.

    Args:
        candidate: Place and precision.
        graph: Precision of a file; None for shipped weights.
    """
    precision = graph or candidate.precision
    if candidate.place.runtime == "openvino":
        if precision == "int8":
            return multiplies_int8()
        return precision != "bf16" or graph == "bf16" or computes_bf16()
    return not (candidate.place.runtime == "ort" and precision == "bf16")


def _told_precision(weights: str) -> str | None:
    """What an ``.onnx`` file of ours says that it computes in."""
    try:
        return read_properties(Path(weights)).get(f"{PREFIX}precision")
    except (OSError, ModelError, MissingDependencyError):  # told when it is opened
        return None


def _by_habit(found: Sequence[Candidate], graph: str | None = None) -> list[Candidate]:
    """The usual order; ``graph`` is the precision of a file, where candidates have none."""
    lacking = [f"{place}: {why}" for place in PLACES if (why := missing(place))]
    places = [candidate.place for candidate in found]
    cpu = Place("ort", "cpu")

    def rank(candidate: Candidate) -> float:
        gains = (candidate.precision or graph) in ("bf16", "int8")
        no_gain = candidate.place.runtime == "openvino" and not gains
        behind_cpu = no_gain and cpu in places
        return places.index(cpu) + 0.5 if behind_cpu else places.index(candidate.place)

    ranked = sorted(found, key=rank)
    order = [candidate.place for candidate in ranked]
    openvino = Place("openvino")
    if openvino in places and order.index(openvino) > places.index(openvino):
        lacking.append("openvino: behind ONNX Runtime, no faster in fp32 and later to start")
    reason = "; ".join(("first in the usual order that is here", *lacking))
    return [Candidate(c.place, c.precision, reason) for c in ranked]


def _by_time(found: Sequence[Candidate], timings: Timings, work: int | None) -> list[Candidate]:
    """By the time that all the work would take, unmeasured ones last in the usual order."""
    amount = "many pixels" if work is None else f"{work} pixels"
    reason = f"fastest for {amount}, as measured here on {timings.measured}"

    def rank(candidate: Candidate) -> float:
        return timings.estimate(candidate.name, work)

    habit = _by_habit(found)
    measured = sorted((c for c in habit if c.name in timings.times), key=rank)
    unmeasured = [c for c in habit if c.name not in timings.times]
    return [Candidate(c.place, c.precision, reason) for c in measured] + unmeasured


def _has_driver() -> bool:
    try:
        check_driver()
    except BackendError:
        return False
    return True


def _has_cuda(torch: ModuleSpec | None) -> bool:
    """Whether an installed torch is built with CUDA, read off its files: importing it is slow.

    True where its files are elsewhere, as those of system packages are; opening it shows then.
    """
    folders = (torch and torch.submodule_search_locations) or ()
    files = {path.name for folder in folders for path in Path(folder, "lib").glob("*torch_c*")}
    on_cpu = any("torch_cpu" in name for name in files)
    return not on_cpu or any("torch_cuda" in name for name in files)
