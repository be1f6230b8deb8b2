"""Check another project's network on one tile before its first picture, wherever it runs.

This project's weights are verified when they are exported, and never come here. Others' are
verified there too, but on a CPU: TensorRT, a GPU's provider or OpenVINO in bf16 may compute
otherwise, and a file that another tool converted was compared with nothing. A network that passed
once is not run again for this: `agsr.engines.community.measurements` notes it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from agsr.backend import Backend, Batch
from agsr.engines.community.exported import cached_path
from agsr.engines.community.measurements import Subject, place_of, read, write
from agsr.engines.community.trust import ORDER, are_exchanged, fault, probe_tile, tinted
from agsr.engines.places import Place
from agsr.engines.request import Request
from agsr.engines.weights_file import Kind
from agsr.errors import AgsrError, BackendError
from agsr.pretrained import sha256

_KIND = "trusted"

_log = logging.getLogger(__name__)


def trusted(
    request: Request,
    place: Place,
    path: Path,
    loaded: Backend,
    reopen: Callable[[str], tuple[Path, Backend]],
) -> Backend:
    """Return a network if its result can be trusted, else one in the next precision.

    Args:
        request: What opened it.
        place: Where it runs.
        path: The file that runs.
        loaded: The network; closed if it can't be trusted.
        reopen: Opens the request in a precision at the same place, unchecked, and returns the file
            that runs, too.

    Raises:
        BackendError: It can't be trusted, and there is no other precision of it.
    """
    problem = _problem(request, place, path, loaded)
    if not problem:
        return loaded
    loaded.close()
    precision = loaded.info.precision
    for better in ORDER[ORDER.index(precision) + 1 :]:
        try:
            file, replacement = reopen(better)
        except AgsrError as error:
            _log.info("%s: %s", better, error)
            continue
        runs = replacement.info.precision
        if also := _problem(request, place, file, replacement):
            replacement.close()
            _log.info("%s: %s %s", file, runs, also)
            continue
        _log.warning("%s: %s %s; running in %s instead", path, precision, problem, runs)
        return replacement
    raise BackendError(
        f"{path}: {precision} on '{place}' {problem}; export its network in fp32, or run it with "
        "--backend ort"
    )


def _problem(request: Request, place: Place, path: Path, loaded: Backend) -> str:
    """Describe what is wrong with a network's result on a tile; empty if nothing is."""
    info = loaded.info
    subject = Subject.of(loaded, f"{place_of(info)} {info.io_format}")
    subject = replace(subject, weights_hash=sha256(path))  # of an export: its own
    if read(_KIND, subject):
        return ""
    is_reduced = info.precision in ORDER[:-1] and place.runtime != "torch"  # which has checked it
    rows, columns = info.largest or (None, None)
    tile = tinted(probe_tile(loaded.sizes)[:, :, :rows, :columns])
    try:
        found = loaded.upscale(tile)
    except BackendError as error:  # in fp32, the first picture shows whether it fails for it, too
        return f"fails: {error}" if is_reduced else ""
    if request.kind is not Kind.FOREIGN_ONNX and are_exchanged(found, tile):
        _log.warning(
            "%s: red and blue of a test picture are exchanged; the network may have been trained "
            "on BGR, which its file doesn't show",
            path,
        )
    if is_reduced:
        problem = fault(found, _expected(request, place, path, tile))
        if problem:
            return problem
    write(_KIND, subject, {"trusted": True})
    return ""


def _expected(request: Request, place: Place, path: Path, tile: Batch) -> Batch | None:
    """Return the tile's result in fp32 arithmetic on this CPU, if it can be made at once.

    That is of the export in fp32, if there is one, or else of the same file, whose weights may be
    rounded. None where the network itself runs like that, or ONNX Runtime can't run it.
    """
    if str(place) == "ort:cpu":
        return None
    try:
        if request.kind is Kind.FOREIGN_ONNX:
            from agsr.engines.foreign import ForeignBackend, Hints

            exact: Backend = ForeignBackend(path, Hints.parse(request.hints))
        else:
            from agsr.engines.runtimes.onnxruntime_backend import OrtBackend

            exact = OrtBackend(_exact_file(request, path))
        with exact:
            return exact.upscale(tile)
    except (AgsrError, MemoryError) as error:
        _log.info("%s: not compared with fp32: %s", path, error)
        return None


def _exact_file(request: Request, path: Path) -> Path:
    if request.kind is not Kind.COMMUNITY:
        return path
    cached = cached_path(Path(request.weights), "fp32")
    return cached if cached.is_file() else path
