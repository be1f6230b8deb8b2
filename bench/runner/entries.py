"""Entries of a benchmark: one `Entry` per row, expanded from the user's lists."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from agsr.backend import Backend, BackendInfo, Batch
from agsr.bicubic import upscale
from agsr.contract import SCALE
from agsr.engines.foreign import ForeignBackend
from agsr.engines.foreign.hints import Hints
from agsr.engines.open import check_request, open_backend
from agsr.engines.places import AUTO, BACKENDS, RUNTIMES, UNNUMBERED, Place
from agsr.engines.runtimes.providers import PROVIDERS
from agsr.engines.weights_file import Kind, declared_scale, kind_of
from agsr.errors import AgsrError, BackendRequestError, UnknownWeightsError, check_any
from agsr.pretrained import CHECKPOINT_SUFFIX, is_community, is_path, shipped_names, unknown_weights
from agsr.system.text import counted

BICUBIC = "bicubic"
"""Name of the baseline, in place of a backend."""

DEFAULT_BACKENDS = tuple(name for name, runtime in RUNTIMES.items() if not runtime.is_remote)
"""Default backends, as ``BACKEND[:PROVIDER_OR_DEVICE]``."""

DEFAULT_STEPS = (1, 2, 4)
"""Default step counts."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A network on a backend, not yet loaded.

    >>> Entry(backend="ort:cuda", weights="psnr", steps=4).label
    'ort:cuda psnr 4 steps'
    """

    backend: str
    """``BACKEND[:PROVIDER_OR_DEVICE]``, like ``ort``, ``ort:cuda``, ``openvino``,
    ``torch:cuda``; or ``bicubic``."""
    weights: str = ""
    """A shipped name or the path of a file; empty for Bicubic."""
    steps: int | None = None
    """Time steps; None uses those of the file."""
    precision: str | None = None
    """Arithmetic; None lets the backend choose."""
    threads: int | None = None
    """CPU threads; None means one per core."""
    foreign: bool = False
    """True if ``weights`` is another project's ONNX file."""
    hints: str = ""
    """Facts about a foreign file, in the form of `agsr.engines.foreign.hints.Hints.parse`."""
    url: str | None = None
    """Address of the server of a remote backend."""
    scale: int | None = SCALE
    """Scale of the network, or of the baseline; None if the network can't be opened."""

    @property
    def label(self) -> str:
        """Name, unique within a benchmark. Paths include their folder, which may be the only
        difference between two files."""
        steps = counted(self.steps, "step") if self.steps else ""
        is_usual = self.is_network or self.scale in (None, SCALE)
        baseline = "" if is_usual else f"x{self.scale}"
        parts = (self.backend, self.weights, baseline, steps, self.precision or "")
        return " ".join(filter(None, parts))

    @property
    def is_network(self) -> bool:
        """True for a network, False for the baseline."""
        return self.backend != BICUBIC

    @property
    def place(self) -> Place:
        """The backend's runtime and device."""
        return Place.parse(self.backend)

    @property
    def cpu_threads(self) -> int | None:
        """`threads` if this place runs on CPU threads, else None."""
        return self.threads if self.place.takes_threads else None

    def check_request(self) -> None:
        """Reject a request that can't run anywhere, without loading anything.

        Raises:
            RequestError: See `agsr.engines.open.check_request`.
        """
        if self.is_network and (self.place.is_remote or not self.foreign):
            check_request(self.place.runtime, self.weights, **self._options())

    def open(self) -> Backend:
        """Load the network.

        Raises:
            AgsrError: It can't run here; the message gives the reason.
        """
        if not self.is_network:
            return Bicubic(self.scale or SCALE)
        if self.foreign and not self.place.is_remote:
            return ForeignBackend(
                Path(self.weights),
                Hints.parse(self.hints),
                place=self.place,
                precision=self.precision,
                threads=self.cpu_threads,
            )
        return open_backend(self.place.runtime, self.weights, **self._options())

    def _options(self) -> dict[str, Any]:
        """Return the arguments of `open_backend`."""
        place, has_device = self.place, ":" in self.backend
        return {
            "steps": self.steps,
            "precision": self.precision,
            "provider": place.kind if place.runtime == "ort" else None,
            "device": _device(place) if has_device else None,
            "threads": self.cpu_threads,
            "hints": self.hints,
            "url": self.url,
        }


def _device(place: Place) -> str | None:
    """Return a place's device in the form that `open_backend` expects beside a provider."""
    if place.runtime != "ort":
        return place.device
    if place.kind in UNNUMBERED:
        return None
    return f"{'cuda' if place.on_gpu else place.kind}:{place.index}"


class Bicubic(Backend):
    """The baseline: MATLAB's bicubic upscaling of the uint8 image.

    Args:
        scale: Output pixels per input pixel along each axis.
    """

    def __init__(self, scale: int = SCALE) -> None:
        self.info = BackendInfo(
            name=BICUBIC,
            device="numpy",
            precision="uint8",
            steps=None,
            receptive_radius=2,
            model=BICUBIC,
            weights_hash="",
            scale=scale,
        )

    def _run(self, lr: Batch) -> Batch:
        images = np.rint(lr.transpose(0, 2, 3, 1) * 255).astype(np.uint8)
        sr = np.stack([upscale(image, self.info.scale) for image in images]).transpose(0, 3, 1, 2)
        return np.asarray(np.ascontiguousarray(sr, np.float32) / np.float32(255))


def expand(
    *,
    backends: Sequence[str] = DEFAULT_BACKENDS,
    weights: Sequence[str],
    steps: Sequence[int] = DEFAULT_STEPS,
    precisions: Sequence[str | None] = (None,),
    threads: int | None = None,
    models: Sequence[str] = (),
    hints: str = "",
    url: str | None = None,
) -> list[Entry]:
    """Return every combination: Bicubic first, foreign ``models`` last.

    Step counts apply to shipped names and ``.safetensors`` files; an ``.onnx`` file has one.
    Foreign models, also among the ``weights``, run on ONNX Runtime, OpenVINO and servers only.
    With the address of a server, any name may be that of a model there.

    Raises:
        BackendError: A backend, or its provider, is unknown.
        ModelError: A name of weights is unknown, or the hints are invalid.

    >>> entries = expand(backends=["torch"], weights=["psnr"], steps=[1, 4])
    >>> [entry.label for entry in entries]
    ['bicubic', 'torch psnr 1 step', 'torch psnr 4 steps']
    """
    Hints.parse(hints)
    _check_names(backends, weights)
    models = [*(name for name in weights if kind_of(name) is Kind.FOREIGN_ONNX), *models]
    weights = [name for name in weights if name not in models]
    places: dict[str, dict[str, Any]] = {
        name: {"threads": threads, "url": url if Place.parse(name).is_remote else None}
        for name in backends
    }
    networks = [
        Entry(weights=name, backend=backend, precision=precision, steps=count, **places[backend])
        for name in (*weights, *filter(is_community, models))
        for backend, precision in itertools.product(backends, precisions)
        for count in (steps if has_checkpoint(name) else (None,))
    ]
    known: dict[str, Any] = {"foreign": True, "hints": hints}
    foreign = [
        Entry(weights=path, backend=backend, precision=precision, **places[backend], **known)
        for path, backend, precision in itertools.product(
            itertools.filterfalse(is_community, models), backends, precisions
        )
        if Place.parse(backend).runtime in ("ort", "openvino", "triton")
    ]
    return [Entry(backend=BICUBIC), *dict.fromkeys((*networks, *foreign))]


def _check_names(backends: Sequence[str], weights: Sequence[str]) -> None:
    """Raise for unknown names before anything is measured."""
    for backend in backends:
        if backend != AUTO and not Place.parse(backend).is_known:
            places = ", ".join(f"ort:{provider}" for provider in PROVIDERS)
            raise BackendRequestError(
                f"no backend '{backend}'; known: {', '.join(BACKENDS)}, {places}, "
                "trt:cuda:N, ort:cuda:N, torch:DEVICE"
            )
    # A server has models of any name.
    if any(Place.parse(backend).is_remote for backend in backends):
        return
    for name in weights:
        if not is_path(name) and name not in shipped_names():
            raise UnknownWeightsError(unknown_weights(name))


def with_scales(entries: Sequence[Entry]) -> list[Entry]:
    """Set the scale of every network; one whose file does not declare it is opened once.

    A network that can't be opened has none; its rows report why.
    """
    networks = [entry for entry in entries if entry.is_network]
    scales: dict[str, int | None] = {}
    for entry in networks:
        if entry.weights not in scales:
            same = [other for other in networks if other.weights == entry.weights]
            scales[entry.weights] = declared_scale(entry.weights) or _found_scale(same)
    return [replace(entry, scale=scales.get(entry.weights, SCALE)) for entry in entries]


def _found_scale(entries: Sequence[Entry]) -> int | None:
    """Open the first entry that works and return its scale; None if none works."""
    for entry in entries:
        with suppress(AgsrError), entry.open() as backend:
            return backend.info.scale
    return None


def of_one_scale(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries, all of them and the baseline at the networks' scale.

    Args:
        entries: From `with_scales`.

    Raises:
        BackendRequestError: The networks have several scales, whose scores and times can't be
            compared.
    """
    scales: dict[int, list[str]] = {}
    for entry in entries:
        if not entry.is_network or entry.scale is None:
            continue
        if entry.weights not in scales.setdefault(entry.scale, []):
            scales[entry.scale].append(entry.weights)
    if len(scales) > 1:
        found = "; ".join(
            f"x{scale}: {', '.join(names)}" for scale, names in sorted(scales.items())
        )
        raise BackendRequestError(
            f"the networks have several scales ({found}), whose rows can't be compared; run agsr "
            "bench once for each scale, with -w or --model"
        )
    return [replace(entry, scale=next(iter(scales), SCALE)) for entry in entries]


def check_all(entries: Sequence[Entry]) -> None:
    """Reject weights, step counts and precisions that no entry can run.

    A combination that only some entries can't run becomes a row with the reason.

    Raises:
        RequestError: The first reason.
    """
    networks = [entry for entry in entries if entry.is_network]
    for value in map(attrgetter, ("weights", "steps", "precision")):
        for each in dict.fromkeys(map(value, networks)):
            check_any(entry.check_request for entry in networks if value(entry) == each)


def has_checkpoint(weights: str) -> bool:
    """Return True if the weights run at any step count: a shipped name or this project's file."""
    is_file = Path(weights).suffix == CHECKPOINT_SUFFIX and not is_community(weights)
    return weights in shipped_names() or is_file
