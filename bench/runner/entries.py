"""What a benchmark compares: one `Contender` per row, from the lists a user gives."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from agsr.backend import Backend, BackendInfo, Batch
from agsr.bicubic import upscale
from agsr.contract import told_steps
from agsr.engines.foreign import ForeignBackend
from agsr.engines.foreign.io_spec import Hints
from agsr.engines.open import check_request, open_backend
from agsr.engines.places import AUTO, BACKENDS, RUNTIMES, Place
from agsr.engines.runtimes.onnxruntime_session import PROVIDERS
from agsr.errors import BackendRequestError, UnknownWeightsError, check_any
from agsr.pretrained import CHECKPOINT_SUFFIX, is_path, shipped_names, unknown_weights

BICUBIC = "bicubic"
"""Name of the baseline among the backends."""

DEFAULT_BACKENDS = tuple(RUNTIMES)
"""Backends of a benchmark where none is named. ``BACKEND[:PROVIDER_OR_DEVICE]``."""

DEFAULT_STEPS = (1, 2, 4)
"""Step counts where none is named."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A network on a backend, not yet loaded."""

    backend: str
    """``BACKEND[:PROVIDER_OR_DEVICE]``, like ``ort``, ``ort:cuda``, ``openvino``,
    ``torch:cuda``; or ``bicubic``."""
    weights: str = ""
    """A shipped name, or a file's path; empty for Bicubic."""
    steps: int | None = None
    """Time steps; None means those of the file."""
    precision: str | None = None
    """Arithmetic; None means the backend's own choice."""
    threads: int | None = None
    """Threads of CPU code; None means one per core."""
    foreign: bool = False
    """Whether ``weights`` is another project's ONNX file."""
    hints: str = ""
    """What is known of a foreign file, as `agsr.engines.foreign.io_spec.Hints.parse` reads it."""

    @property
    def label(self) -> str:
        """A name that is unique within a benchmark: files keep their folder, which may be all that
        tells two of them apart."""
        steps = told_steps(self.steps) if self.steps else ""
        parts = (self.backend, self.weights, steps, self.precision or "")
        return " ".join(filter(None, parts))

    @property
    def is_network(self) -> bool:
        """Whether this is a network, and not the baseline."""
        return self.backend != BICUBIC

    @property
    def place(self) -> Place:
        """The backend's runtime and device."""
        return Place.parse(self.backend)

    @property
    def cpu_threads(self) -> int | None:
        """`threads`, where they can be set for this place."""
        return self.threads if self.place.takes_threads else None

    def check_request(self) -> None:
        """Reject what can't run anywhere, as far as the words alone tell; nothing is loaded.

        Raises:
            RequestError: See `agsr.engines.open.check_request`.
        """
        if self.is_network and not self.foreign:
            check_request(self.place.runtime, self.weights, **self._options())

    def open(self) -> Backend:
        """Load it.

        Raises:
            AgsrError: It can't run here; the message says why.
        """
        if not self.is_network:
            return Bicubic()
        if self.foreign:
            return ForeignBackend(
                Path(self.weights),
                Hints.parse(self.hints),
                place=self.place,
                precision=self.precision or "fp32",
                threads=self.cpu_threads,
            )
        return open_backend(self.place.runtime, self.weights, **self._options())

    def _options(self) -> dict[str, Any]:
        """Arguments of `open_backend`."""
        place, named = self.place, ":" in self.backend
        return {
            "steps": self.steps,
            "precision": self.precision,
            "provider": place.kind if place.runtime == "ort" else None,
            "device": _device(place) if named else None,
            "threads": self.cpu_threads,
        }


def _device(place: Place) -> str | None:
    """A place's device, as `open_backend` has it beside a provider."""
    if place.runtime != "ort":
        return place.device
    return f"cuda:{place.index}" if place.on_gpu else None


class Bicubic(Backend):
    """The baseline: MATLAB's bicubic enlargement of the image as uint8."""

    def __init__(self) -> None:
        self.info = BackendInfo(
            name=BICUBIC,
            device="numpy",
            precision="uint8",
            steps=None,
            receptive_radius=2,
            model=BICUBIC,
            weights_hash="",
        )

    def _run(self, lr: Batch) -> Batch:
        images = np.rint(lr.transpose(0, 2, 3, 1) * 255).astype(np.uint8)
        sr = np.stack([upscale(image) for image in images]).transpose(0, 3, 1, 2)
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
) -> list[Contender]:
    """Every combination, Bicubic first, other people's ``models`` last.

    Step counts apply to shipped names and ``.safetensors`` files; an ``.onnx`` file has its own.
    Foreign models run on ONNX Runtime and OpenVINO alone.

    Raises:
        BackendError: A backend, or its provider, is unknown.
        ModelError: A name of weights is unknown, or the hints can't be understood.
    """
    Hints.parse(hints)
    _check_names(backends, weights)
    networks = [
        Contender(backend=backend, weights=name, steps=count, precision=precision, threads=threads)
        for name in weights
        for backend, precision in itertools.product(backends, precisions)
        for count in (steps if has_checkpoint(name) else (None,))
    ]
    foreign = [
        Contender(
            backend=backend,
            weights=path,
            precision=precision,
            threads=threads,
            foreign=True,
            hints=hints,
        )
        for path, backend, precision in itertools.product(models, backends, precisions)
        if Place.parse(backend).runtime in ("ort", "openvino")
    ]
    return [Contender(backend=BICUBIC), *dict.fromkeys((*networks, *foreign))]


def _check_names(backends: Sequence[str], weights: Sequence[str]) -> None:
    """Typing mistakes are told before anything is measured."""
    for backend in backends:
        if backend != AUTO and not Place.parse(backend).is_known:
            places = ", ".join(f"ort:{provider}" for provider in PROVIDERS)
            raise BackendRequestError(
                f"no backend '{backend}'; known: {', '.join(BACKENDS)}, {places}, trt:cuda:N, "
                "ort:cuda:N, torch:DEVICE"
            )
    for name in weights:
        if not is_path(name) and name not in shipped_names():
            raise UnknownWeightsError(unknown_weights(name))


def check_all(contenders: Sequence[Contender]) -> None:
    """Reject weights, step counts and precisions that none of the contenders can run.

    What only some of them can't run becomes a row that says so.

    Raises:
        RequestError: The first reason.
    """
    networks = [contender for contender in contenders if contender.is_network]
    for value in (_WEIGHTS, _STEPS, _PRECISION):
        for each in dict.fromkeys(map(value, networks)):
            check_any(c.check_request for c in networks if value(c) == each)


_WEIGHTS, _STEPS, _PRECISION = map(attrgetter, ("weights", "steps", "precision"))


def has_checkpoint(weights: str) -> bool:
    """Whether these weights run at any step count: a shipped name, or a ``.safetensors`` file."""
    return weights in shipped_names() or Path(weights).suffix == CHECKPOINT_SUFFIX
