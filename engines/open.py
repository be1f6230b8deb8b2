"""Open a backend from its options: backend name, weights, steps, precision, device."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agsr.backend import Backend, BackendInfo
from agsr.engines.places import AUTO, Place
from agsr.engines.request import Request
from agsr.engines.weights_file import Kind
from agsr.errors import (
    BackendError,
    BuildError,
    MissingDependencyError,
    ModelError,
    RequestError,
)
from agsr.pretrained import DEFAULT_WEIGHTS, ENGINE_SUFFIX
from agsr.system.optional_import import install_command

if TYPE_CHECKING:
    from agsr.engines.tensorrt.progress import Report

__all__ = ["check_request", "open_backend"]

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
    url: str | None = None,
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
        provider: ONNX Runtime's execution provider, a key of
            `agsr.engines.runtimes.providers.PROVIDERS`: ``cpu`` (the default), ``cuda``, ``dml``, …
            With a provider, ``auto`` means ONNX Runtime.
        device: Device of torch, ``cpu`` by default; for trt and ONNX Runtime's GPU providers one
            like ``cuda:1``, ``dml:0`` or ``coreml``; ``gpu`` or ``npu`` of OpenVINO. With a device
            and no provider, ``auto`` means the runtime that alone has it, else torch.
        precision: Arithmetic. torch and OpenVINO choose it at run time; for the others it is that
            of the ONNX file, and selects the file of a shipped name. None means ``fp32``, for trt
            ``fp16``, and for a named file its own. ``"auto"``, which for the backend ``auto`` is
            the default, means `agsr.engines.ranking.default_precision` for shipped weights, which
            may be ``bf16``.
        threads: Threads of OpenVINO and of ONNX Runtime's provider cpu; None means one per core.
        hints: What running another project's ONNX file doesn't show, in the form of
            `agsr.engines.foreign.Hints.parse`.
        url: Address of the Triton server of the backend ``triton``, like ``grpc://host:8001`` or
            ``http://host:8000``, see `agsr.engines.triton.address.Address`. With an address,
            ``auto`` means ``triton``. The weights are then the name of a model there, or weights
            that ``agsr export --triton`` has written.
        progress: Called with the progress of a TensorRT engine's build; may cancel it.
        allow_fallback: If the requested backend can't run, run on ONNX Runtime's CPU provider, in
            fp32 and with the same number of threads, or weights for torch on torch on the CPU;
            `Backend.info` reports what runs. Otherwise
            that is an error, except for ``auto``, which opens the next best and logs a warning. A
            wrong request is always an error.
        work: LR pixels that will be upscaled, if known: for few, ``auto`` prefers a backend that
            starts faster.

    Raises:
        AgsrError: The backend can't be opened; the message says why and what to do.
    """
    request = Request(
        backend=backend,
        weights=weights,
        steps=steps,
        provider=provider,
        device=device,
        precision=precision,
        threads=threads,
        hints=hints,
        url=url,
    )
    if not allow_fallback:
        return _open_request(request, progress, work)
    try:
        return _open_request(request.without_unused_threads(), progress, work)
    except RequestError:  # the CPU does not answer a typing mistake
        raise
    except (BackendError, MissingDependencyError) as error:
        _log.warning("%s; running on the CPU instead", error)
        return _open_request(request.on_cpu(), progress, work)


def check_request(backend: str, weights: str, **options: Any) -> None:
    """Reject a request that `open_backend` would reject, without loading anything.

    >>> check_request("ort", "psnr", steps=4)

    Args:
        backend: As for `open_backend`.
        weights: As for `open_backend`.
        options: The other fields of `agsr.engines.request.Request`.

    Raises:
        RequestError: An option is wrong, or the weights don't exist in that form.
        CheckpointError: A shipped file is damaged.
    """
    Request(backend=backend, weights=weights, **options).check()


def _open_request(request: Request, progress: Report | None, work: int | None) -> Backend:
    if request.runtime == AUTO:
        return _open_best(request, progress, work)
    place = request.place
    if place.runtime == "triton":
        return _open_served(request)
    return _open(request, place, request.precision_at(place), progress)


def _open_best(request: Request, progress: Report | None, work: int | None) -> Backend:
    """Open the first candidate that works; log why the ones before it failed."""
    found = request.candidates(work)
    if not found:
        raise MissingDependencyError(
            f"no installed backend can run {request.weights} with these options. "
            f"Install onnxruntime and openvino with: {install_command('cpu')}"
        )
    failures: list[str] = []
    for candidate in found:
        try:
            loaded = _open(request, candidate.place, candidate.precision, progress)
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


def _open(
    request: Request, place: Place, precision: str | None, progress: Report | None
) -> Backend:
    """Load a network at a place; one of another project is checked on a tile."""
    path, loaded = _open_unchecked(request, place, precision, progress)
    if loaded.info.receptive_radius is not None:  # of this project
        return loaded
    from agsr.engines.trusted import trusted

    def reopen(better: str) -> tuple[Path, Backend]:
        return _open_unchecked(replace(request, precision=better), place, better, progress)

    return trusted(request, place, path, loaded, reopen)


def _open_unchecked(
    request: Request, place: Place, precision: str | None, progress: Report | None
) -> tuple[Path, Backend]:
    path = request.file_for(place, precision)
    return path, _load(request, path, place, precision, progress)


def _load(
    request: Request, path: Path, place: Place, precision: str | None, progress: Report | None
) -> Backend:
    if request.kind is Kind.FOREIGN_ONNX:
        from agsr.engines.foreign import open_foreign

        return open_foreign(path, request.hints, place, precision, request.threads, progress)
    if place.runtime == "torch":
        return _open_torch(request, path, place, precision or "fp32")
    loaded = _open_exported(request, path, place, precision, progress)
    try:
        _check_loaded(loaded.info, path, request.steps, precision)
    except BackendError:
        loaded.close()
        raise
    return loaded


def _open_served(request: Request) -> Backend:
    from agsr.engines.triton.backend import TritonBackend

    precision = None if request.precision == "auto" else request.precision
    loaded = TritonBackend(
        request.address,
        request.weights,
        steps=request.steps,
        precision=precision,
        hints=request.hints,
    )
    try:
        _check_loaded(loaded.info, Path(loaded.info.model), request.steps, precision)
    except BackendError:
        loaded.close()
        raise
    return loaded


def _open_torch(request: Request, path: Path, place: Place, precision: str) -> Backend:
    if request.kind is Kind.COMMUNITY:
        from agsr.engines.community.backend import CommunityBackend

        return CommunityBackend(path, device=place.device, precision=precision)
    from agsr.engines.runtimes.torch_backend import TorchBackend

    return TorchBackend(path, steps=request.steps, device=place.device, precision=precision)


def _open_exported(
    request: Request, path: Path, place: Place, precision: str | None, progress: Report | None
) -> Backend:
    """Load an exported file; each runtime is imported only if it runs."""
    if place.runtime == "trt":
        from agsr.engines.tensorrt.backend import TrtBackend

        if path.suffix == ENGINE_SUFFIX:
            _log.warning("%s: an engine is code; run only those you trust", path)
        return TrtBackend(path, report=progress, device=place.index)
    threads = request.threads
    if place.runtime == "openvino":
        from agsr.engines.runtimes.openvino_backend import OpenVinoBackend

        return OpenVinoBackend(path, precision=precision, threads=threads, device=place.device)
    from agsr.engines.runtimes.onnxruntime_backend import OrtBackend

    return OrtBackend(
        path, provider=place.kind, precision=precision, threads=threads, device=place.index
    )


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
