"""Open a backend from its options: backend name, weights, steps, precision, device."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agsr.backend import Backend, BackendInfo
from agsr.contract import MAX_STEPS, PRECISIONS, Precision
from agsr.engines.places import (
    AUTO,
    BACKENDS,
    RUNTIMES,
    Place,
    accepts,
    place_from_options,
)
from agsr.engines.ranking import Candidate, candidates, default_precision
from agsr.engines.runtimes.onnxruntime_backend import OrtBackend
from agsr.engines.runtimes.openvino_backend import OpenVinoBackend
from agsr.engines.runtimes.torch_backend import TorchBackend
from agsr.engines.runtimes.torch_module import check_precision
from agsr.engines.weights_file import Kind, check_hints, kind_of
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
    is_community,
    require_file,
    resolve_weights,
)
from agsr.system.optional_import import install_command

if TYPE_CHECKING:
    from agsr.engines.tensorrt.progress import Report

__all__ = ["open_backend"]

Options = Mapping[str, Any]

_log = logging.getLogger(__name__)


def open_backend(
    backend: str = AUTO,
    weights: str = DEFAULT_WEIGHTS,
    *,
    steps: int | None = None,
    provider: str | None = None,
    device: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    hints: str = "",
    progress: Report | None = None,
    allow_fallback: bool = False,
    work: int | None = None,
) -> Backend:
    """Load a network.

    >>> with open_backend("ort", "psnr", steps=1) as backend:  # doctest: +SKIP
    ...     sr = backend.upscale(lr)

    Args:
        backend: One of `agsr.engines.places.BACKENDS`.
        weights: A shipped name, or the path of an ``.onnx``, ``.safetensors``, ``.pth`` or
            ``.engine`` file. Another project's weights run on torch, on other backends as an
            export, which is made at first use and cached; an ``.onnx`` file may be another
            project's, too.
        steps: Time steps; None means those of the ONNX file, or the network's default (4).
        provider: ONNX Runtime's execution provider: ``cpu`` (the default), ``cuda``,
            ``tensorrt-rtx``. With a provider, ``auto`` means ONNX Runtime.
        device: Device of torch, ``cpu`` by default; for trt and ONNX Runtime's GPU providers one
            like ``cuda:1``. With a device and no provider, ``auto`` means torch.
        precision: Arithmetic. torch and OpenVINO choose it at run time; for the others it is that
            of the ONNX file, and selects the file of a shipped name. None means ``fp32``, for trt
            ``fp16``, and for a named file its own. ``"auto"``, which for the backend ``auto`` is
            the default, means `agsr.engines.ranking.default_precision` for shipped weights, which
            may be ``bf16``.
        threads: Threads of OpenVINO and of ONNX Runtime's provider cpu; None means one per core.
        hints: What running another project's ONNX file doesn't show, in the form of
            `agsr.engines.foreign.Hints.parse`.
        progress: Called with the progress of a TensorRT engine's build; may cancel it.
        allow_fallback: If the requested backend can't run, run on ONNX Runtime's CPU provider, in
            fp32 and with the same number of threads; `Backend.info` reports what runs. Otherwise
            that is an error, except for ``auto``, which opens the next best and logs a warning. A
            wrong request is always an error.
        work: LR pixels that will be upscaled, if known: for few, ``auto`` prefers a backend that
            starts faster.

    Raises:
        AgsrError: The backend can't be opened; the message says why and what to do.
    """
    _check_steps(steps)
    weights = resolve_weights(weights)
    check_hints(weights, steps, hints)
    if allow_fallback:
        asked: dict[str, Any] = {"provider": provider, "device": device}
        asked["threads"] = _usable_threads(backend, weights, asked, threads)
        asked |= {"precision": precision, "hints": hints, "progress": progress, "work": work}
        try:
            return open_backend(backend, weights, steps=steps, **asked)
        except RequestError:  # the CPU does not answer a typing mistake
            raise
        except (BackendError, MissingDependencyError) as error:
            _log.warning("%s; running on the CPU instead", error)
            return open_backend("ort", weights, steps=steps, threads=threads, hints=hints)
    name = _choose(backend, weights, {"provider": provider, "threads": threads, "device": device})
    if name == AUTO:
        asked_precision = None if precision == "auto" else precision
        return _open_best(
            candidates(weights, asked_precision, threads, work),
            partial(_open, weights, steps, threads, hints, progress),
            weights,
            steps,
            asked_precision,
        )
    place = place_from_options(name, provider, device)
    place.check_threads(threads)
    if precision == "auto":
        precision = default_precision(place, weights)
    return _open(weights, steps, threads, hints, progress, place, precision)


def _usable_threads(backend: str, weights: str, asked: Options, threads: int | None) -> int | None:
    """Return the number of threads if the requested place has one; else it is for the CPU only."""
    name = _choose(backend, weights, asked)
    place = Place(AUTO) if name == AUTO else place_from_options(name, **asked)
    return threads if place.takes_threads else None


def _open_best(
    found: Sequence[Candidate],
    load: Callable[[Place, str | None], Backend],
    weights: str,
    steps: int | None,
    precision: str | None,
) -> Backend:
    """Open the first candidate that works; log why the ones before it failed."""
    if not found:
        raise MissingDependencyError(
            f"no installed backend can run {weights} with these options. "
            f"Install onnxruntime and openvino with: {install_command('cpu')}"
        )
    _check_weights(found, weights, steps, precision)
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


def _check_weights(
    found: Sequence[Candidate], weights: str, steps: int | None, precision: str | None
) -> None:
    """Reject what is wrong with the words themselves, whatever the backend."""
    if any(candidate.place.runtime in ("ort", "openvino") for candidate in found):
        find_onnx(weights, steps, _graph_precision("openvino", precision or "fp32"))


def _open(
    weights: str,
    steps: int | None,
    threads: int | None,
    hints: str,
    progress: Report | None,
    place: Place,
    precision: str | None,
) -> Backend:
    """Load a network at a place."""
    path = _find_file(place, weights, steps, precision)
    if kind_of(weights) is Kind.FOREIGN_ONNX:
        from agsr.engines.foreign import open_foreign

        return open_foreign(path, hints, place, precision, threads, progress)
    if place.runtime == "torch" and is_community(weights):
        from agsr.engines.community.backend import CommunityBackend

        return CommunityBackend(path, device=place.device, precision=precision or "fp32")
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
        _check_loaded(loaded.info, path, steps, precision)
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
    hints: str = "",
) -> None:
    """Reject a request that `open_backend` would reject, without loading anything.

    Raises:
        RequestError: An option is wrong, or the weights don't exist in that form.
        CheckpointError: A shipped file is damaged.
    """
    _check_steps(steps)
    weights = resolve_weights(weights)
    check_hints(weights, steps, hints)
    name = _choose(backend, weights, {"provider": provider, "threads": threads, "device": device})
    if name == AUTO:
        requested = None if precision == "auto" else precision
        found = candidates(weights, requested, threads, None)
        return _check_weights(found, weights, steps, requested)
    place = place_from_options(name, provider, device)
    place.check_threads(threads)
    if precision != "auto":
        if place.runtime == "torch":
            check_precision(precision or "fp32")
        if is_community(weights):
            return require_file(weights)
        _find_file(place, weights, steps, precision)
    return None


def _check_steps(steps: int | None) -> None:
    if steps is not None and not 1 <= steps <= MAX_STEPS:
        raise BackendRequestError(f"steps is {steps}; expected 1 to {MAX_STEPS}")


def _find_file(place: Place, weights: str, steps: int | None, precision: str | None) -> Path:
    """Find the file that a place loads for these weights, or make it."""
    if is_community(weights):
        require_file(weights)
        if place.runtime == "torch":
            return Path(weights)
        from agsr.engines.community.exported import exported_file

        graph = _graph_precision(place.runtime, precision) if precision else None
        return exported_file(Path(weights), graph, str(place))
    if place.runtime == "torch":
        return find_checkpoint(weights)
    if place.runtime == "openvino":
        return find_onnx(weights, steps, _graph_precision("openvino", precision or "fp32"))
    if place.runtime == "trt" and Path(weights).suffix == ENGINE_SUFFIX:
        return Path(weights)
    default = "fp16" if place.runtime == "trt" else "fp32"
    return find_onnx(weights, steps, _graph_precision(place.runtime, precision or default))


def _check_loaded(info: BackendInfo, path: Path, steps: int | None, precision: str | None) -> None:
    if steps is not None and info.steps != steps:
        raise BackendError(
            f"{path} was exported with {info.steps or 'no'} steps, asked for {steps}; "
            f"make it with: agsr export -w WEIGHTS --steps {steps}"
        )
    if precision is not None and info.precision != precision:
        raise BackendError(
            f"{path} is {info.precision}, asked for {precision}; "
            f"make it with: agsr export -w WEIGHTS --precision {precision}"
        )


def _graph_precision(runtime: str, precision: str) -> Precision:
    """Return the precision of the ONNX file needed; fp32 if the runtime converts when it runs."""
    if precision in RUNTIMES[runtime].precisions:
        return "fp32"
    for known in PRECISIONS:
        if precision == known:
            return known
    raise BackendRequestError(f"no precision named '{precision}'; known: {', '.join(PRECISIONS)}")


def _choose(backend: str, weights: str, options: Options) -> str:
    """Choose the backend to load. An option of another backend is an error, never ignored."""
    given = [option for option, value in options.items() if value is not None]
    name = _resolve(backend, weights, "provider" in given, "device" in given)
    # A number of threads is checked later, by `Place.check_threads`.
    misplaced = [option for option in given if option != "threads" and not accepts(name, option)]
    if misplaced:
        raise BackendRequestError(
            f"--{misplaced[0]} does not belong to the backend '{name}'; "
            "--provider is ONNX Runtime's, --device that of torch, trt and ONNX Runtime"
        )
    return name


def _resolve(backend: str, weights: str, has_provider: bool, has_device: bool) -> str:
    if backend not in BACKENDS:
        raise BackendRequestError(f"no backend named '{backend}'; known: {', '.join(BACKENDS)}")
    suffix = Path(weights).suffix
    if backend == AUTO and is_community(weights):
        return "ort" if has_provider else "torch"
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
    is_torch_device = has_device and not has_provider and suffix != ONNX_SUFFIX
    if suffix == CHECKPOINT_SUFFIX or is_torch_device:
        return "torch"
    return "ort" if has_provider or has_device else AUTO
