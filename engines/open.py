"""From the words a user gives (backend, weights, steps) to a loaded backend."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from agsr.backend import Backend, BackendInfo
from agsr.contract import MAX_STEPS, Precision
from agsr.engines.places import AUTO, Place, named_place
from agsr.engines.ranking import Candidate, candidates, own_precision
from agsr.engines.runtimes.onnxruntime_backend import OrtBackend
from agsr.engines.runtimes.openvino_backend import OpenVinoBackend
from agsr.engines.runtimes.openvino_session import PRECISIONS
from agsr.engines.runtimes.torch_backend import TorchBackend, check_precision
from agsr.errors import (
    BackendError,
    BackendRequestError,
    BuildError,
    MissingDependencyError,
    ModelError,
    RequestError,
)
from agsr.pretrained import (
    CHECKPOINT_SUFFIX,
    DEFAULT_WEIGHTS,
    ENGINE_SUFFIX,
    ONNX_SUFFIX,
    find_checkpoint,
    find_onnx,
)
from agsr.system.optional_import import install_command

if TYPE_CHECKING:
    from agsr.engines.tensorrt.progress import Report

Options = Mapping[str, Any]

BACKENDS = (AUTO, "ort", "openvino", "torch", "trt")
"""Names of the backends; ``auto`` takes the best that works here, see `agsr.engines.ranking`."""

_log = logging.getLogger(__name__)

_OWNERS = {"provider": ("ort",), "device": ("torch", "trt", "ort")}
"""Backends that have an option; for threads, see `Place.takes_threads`."""


def open_backend(
    backend: str = AUTO,
    weights: str = DEFAULT_WEIGHTS,
    *,
    steps: int | None = None,
    provider: str | None = None,
    device: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    progress: Report | None = None,
    allow_fallback: bool = False,
    work: int | None = None,
) -> Backend:
    """Load a network.

    Args:
        backend: One of `BACKENDS`.
        weights: A shipped name, or the path of an ``.onnx``, ``.safetensors`` or ``.engine`` file.
        steps: Time steps; None means those of the ONNX file, or the network's default (4).
        provider: ONNX Runtime's execution provider: ``cpu`` (the default), ``cuda``,
            ``tensorrt-rtx``. ``auto`` takes ONNX Runtime where it is given.
        device: Device: torch's, ``cpu`` by default; for trt and ONNX Runtime's GPU providers one
            like ``cuda:1``. ``auto`` uses torch where it is given without a provider.
        precision: Arithmetic. torch and OpenVINO choose it at run time; else it is that of the
            ONNX file, which for a shipped name is found by it. None means ``fp32``, for trt
            ``fp16``, or what a named file has; for ``auto`` the same as ``"auto"``: of shipped
            weights `agsr.engines.ranking.own_precision`, which may be ``bf16``.
        threads: Threads of OpenVINO and of ONNX Runtime's provider cpu; None means one per core.
        progress: Told about the build of a TensorRT engine; may cancel it.
        allow_fallback: Run on ONNX Runtime's CPU provider, in fp32 and with these threads, if
            what was asked for can't; `Backend.info` reports what runs. Without it, that is an
            error, except for ``auto``, which opens the next best and logs a warning. A wrong
            request is an error always.
        work: LR pixels that will be upscaled, where that is known: for few, ``auto`` takes what
            starts faster.

    Raises:
        AgsrError: Whatever is wrong, in words the user can act on.
    """
    if steps is not None and not 1 <= steps <= MAX_STEPS:
        raise BackendRequestError(f"steps is {steps}; expected 1 to {MAX_STEPS}")
    if allow_fallback:
        asked: dict[str, Any] = {"provider": provider, "device": device}
        asked["threads"] = _usable_threads(backend, weights, asked, threads)
        asked |= {"precision": precision, "progress": progress, "work": work}
        try:
            return open_backend(backend, weights, steps=steps, **asked)
        except RequestError:  # the CPU is no answer to a mistake in typing
            raise
        except (BackendError, MissingDependencyError) as error:
            _log.warning("%s; running on the CPU instead", error)
            return open_backend("ort", weights, steps=steps, threads=threads)
    name = _choose(backend, weights, {"provider": provider, "threads": threads, "device": device})
    if name == AUTO:
        asked_precision = None if precision == "auto" else precision
        return _open_best(
            candidates(weights, asked_precision, threads, work),
            partial(_open, weights, steps, threads, progress),
            weights,
            steps,
            asked_precision,
        )
    place = named_place(name, provider, device)
    place.check_threads(threads)
    if precision == "auto":
        precision = own_precision(place, weights)
    return _open(weights, steps, threads, progress, place, precision)


def _usable_threads(backend: str, weights: str, asked: Options, threads: int | None) -> int | None:
    """The number of threads where what is asked for takes one; else it is the CPU's alone."""
    name = _choose(backend, weights, asked)
    place = Place(AUTO) if name == AUTO else named_place(name, **asked)
    return threads if place.takes_threads else None


def _open_best(
    found: Sequence[Candidate],
    load: Callable[[Place, str | None], Backend],
    weights: str,
    steps: int | None,
    precision: str | None,
) -> Backend:
    """The first candidate that can be opened; what keeps the others from it is told."""
    if not found:
        raise MissingDependencyError(
            f"nothing is installed here that runs {weights} as asked. "
            f"Install onnxruntime and openvino with: {install_command('cpu')}"
        )
    _check_words(found, weights, steps, precision)
    failures: list[str] = []
    for candidate in found:
        try:
            loaded = load(candidate.place, candidate.precision)
        except (BackendError, BuildError, MissingDependencyError, ModelError) as error:
            failures.append(f"{candidate.name}: {error}")
            last = error
            continue
        for failure in failures:
            _log.warning("%s; running on %s instead", failure, candidate.name)
        reason = "the next best" if failures else candidate.reason
        loaded.info = replace(loaded.info, reason=reason)
        return loaded
    raise last


def _check_words(
    found: Sequence[Candidate], weights: str, steps: int | None, precision: str | None
) -> None:
    """Reject what is wrong with the words themselves, whatever the backend."""
    if any(candidate.place.runtime in ("ort", "openvino") for candidate in found):
        find_onnx(weights, steps, _graph_precision(precision or "fp32", PRECISIONS))


def _open(
    weights: str,
    steps: int | None,
    threads: int | None,
    progress: Report | None,
    place: Place,
    precision: str | None,
) -> Backend:
    """Load a network on a place."""
    path = _find_file(place, weights, steps, precision)
    if place.runtime == "torch":
        return TorchBackend(path, steps=steps, device=place.device, precision=precision or "fp32")
    loaded: Backend
    if place.runtime == "trt":
        from agsr.engines.tensorrt.backend import TrtBackend

        if path.suffix == ENGINE_SUFFIX:
            _log.warning("%s: an engine is code; run only those you trust", path)
        loaded = TrtBackend(path, report=progress, device=place.index)
    elif place.runtime == "openvino":
        loaded = OpenVinoBackend(path, precision=precision, threads=threads)
    else:
        loaded = OrtBackend(
            path, provider=place.kind, precision=precision, threads=threads, device=place.index
        )
    try:
        _check_what_was_loaded(loaded.info, path, steps, precision)
    except BackendError:
        loaded.close()
        raise
    return loaded


def check_request(
    backend: str,
    weights: str,
    *,
    steps: int | None = None,
    provider: str | None = None,
    device: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
) -> None:
    """Reject what `open_backend` would, as far as the words alone tell; nothing is loaded.

    Raises:
        RequestError: The words are wrong, or the weights don't exist in that form.
        CheckpointError: A shipped file is damaged.
    """
    name = _choose(backend, weights, {"provider": provider, "threads": threads, "device": device})
    if name == AUTO:
        asked = None if precision == "auto" else precision
        return _check_words(candidates(weights, asked, threads, None), weights, steps, asked)
    place = named_place(name, provider, device)
    place.check_threads(threads)
    if precision != "auto":
        if place.runtime == "torch":
            check_precision(precision or "fp32")
        _find_file(place, weights, steps, precision)
    return None


def _find_file(place: Place, weights: str, steps: int | None, precision: str | None) -> Path:
    """The file that a place loads for these weights."""
    if place.runtime == "torch":
        return find_checkpoint(weights)
    if place.runtime == "openvino":
        return find_onnx(weights, steps, _graph_precision(precision or "fp32", PRECISIONS))
    if place.runtime == "trt" and Path(weights).suffix == ENGINE_SUFFIX:
        return Path(weights)
    usual = "fp16" if place.runtime == "trt" else "fp32"
    return find_onnx(weights, steps, _graph_precision(precision or usual))


def _check_what_was_loaded(
    info: BackendInfo, path: Path, steps: int | None, precision: str | None
) -> None:
    if steps is not None and info.steps != steps:
        raise BackendError(
            f"{path} was exported with {info.steps} steps, asked for {steps}; "
            f"make it with: agsr export -w WEIGHTS --steps {steps}"
        )
    if precision is not None and info.precision != precision:
        raise BackendError(
            f"{path} is {info.precision}, asked for {precision}; "
            f"make it with: agsr export -w WEIGHTS --precision {precision}"
        )


def _graph_precision(precision: str, chosen: Collection[str] = ()) -> Precision:
    """The ONNX file that running in ``precision`` needs: fp32 where that is chosen when run."""
    if precision in chosen:
        return "fp32"
    for known in get_args(Precision):
        if precision == known:
            return cast(Precision, known)
    known_names = ", ".join(get_args(Precision))
    raise BackendRequestError(f"no precision named '{precision}'; known: {known_names}")


def _choose(backend: str, weights: str, options: Options) -> str:
    """The backend to load; an option that only another one has is an error, never ignored."""
    given = [option for option, value in options.items() if value is not None]
    name = _resolve(backend, weights, "provider" in given, "device" in given)
    foreign = [option for option in given if name not in _OWNERS.get(option, BACKENDS)]
    if foreign:
        raise BackendRequestError(
            f"--{foreign[0]} does not belong to the backend '{name}'; "
            "--provider is ONNX Runtime's, --device that of torch, trt and ONNX Runtime"
        )
    return name


def _resolve(backend: str, weights: str, wants_provider: bool, wants_device: bool) -> str:
    if backend not in BACKENDS:
        raise BackendRequestError(f"no backend named '{backend}'; known: {', '.join(BACKENDS)}")
    suffix = Path(weights).suffix
    if suffix == ENGINE_SUFFIX and backend not in (AUTO, "trt"):
        raise BackendRequestError(f"{weights}: a TensorRT engine runs on --backend trt only")
    if backend == "torch" and suffix == ONNX_SUFFIX:
        raise BackendRequestError(
            f"torch runs {CHECKPOINT_SUFFIX} files, not {weights}: --backend ort"
        )
    if backend != AUTO:
        return backend
    if suffix == ENGINE_SUFFIX:
        return "trt"
    wants_torch = wants_device and not wants_provider and suffix != ONNX_SUFFIX
    if suffix == CHECKPOINT_SUFFIX or wants_torch:
        return "torch"
    return "ort" if wants_provider or wants_device else AUTO
