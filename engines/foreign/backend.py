"""Backend for networks of other projects: ONNX files that do not follow our contract.

Data flow: file → `agsr.engines.onnx_file.inspect` (its contents) → session →
`agsr.engines.foreign.probe` (its input and output format) → the same batches in and out as every
`agsr.backend.Backend`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from agsr.backend import Backend, BackendInfo, Batch, translated_errors
from agsr.contract import CHANNELS, PRECISIONS
from agsr.engines.foreign.hints import Hints
from agsr.engines.foreign.io_spec import Array, IoSpec
from agsr.engines.foreign.probe import find_io_spec
from agsr.engines.onnx_file.checks import running_precision
from agsr.engines.onnx_file.inspect import check_self_contained, read_content
from agsr.engines.places import RUNTIMES, Place
from agsr.engines.runtimes.onnxruntime_session import open_session
from agsr.engines.runtimes.openvino_session import open_compiled
from agsr.engines.runtimes.session_device import SessionDevice
from agsr.errors import BackendError, ModelError
from agsr.system.text import first_line

if TYPE_CHECKING:
    from agsr.contract import Precision
    from agsr.engines.tensorrt.progress import Report


_COPIES = 4
"""Copies of a result in memory at once: as output, joined, in our range, and in our order."""


class ForeignBackend(Backend):
    """Runs any ONNX network that upscales a picture, or restores it at its size (×1).

    >>> from agsr import Upscaler
    >>> upscaler = Upscaler(backend=ForeignBackend(Path("other_x4.onnx")))  # doctest: +SKIP

    Scale, layout, element type, range, channels and accepted sizes are found by running the
    network, and reported as `io_spec`. The order of colours can't be found: it is RGB unless a hint
    is given.

    Args:
        path: ONNX file.
        hints: Known properties, which are not probed.
        place: ONNX Runtime or OpenVINO; None means ONNX Runtime's CPU provider. The CPU also runs
            nodes that another of its providers can't, and `Backend.info` reports that.
        precision: Arithmetic; None means the graph's. For an fp32 graph on OpenVINO also bf16.
        threads: Threads on a CPU, at most one per core; None means one per core.

    Raises:
        ModelError: The file is not such a network, or its input format can't be found.
        BackendError: The provider isn't available here, or can't run as requested.
        MissingDependencyError: protobuf or the runtime is not installed.
    """

    io_spec: IoSpec
    """Format of the network's input and output."""

    def __init__(
        self,
        path: Path,
        hints: Hints | None = None,
        *,
        place: Place | None = None,
        precision: str | None = None,
        threads: int | None = None,
    ) -> None:
        content = read_content(path)
        place = place or Place("ort")
        running = _running_precision(path, content.precision, place, precision)
        self._session, device = _open(path, place, running, threads)
        on_ort = place.runtime == "ort"
        self._device = SessionDevice(place.kind, place.index) if on_ort else None
        self.io_spec = find_io_spec(self._session, self._probe, hints or Hints(), str(path))
        self.sizes = self.io_spec.rule
        self.tile_align = self.sizes.tile_align
        self.bytes_per_pixel = self.bytes_per_pixel + _COPIES * 4 * CHANNELS * self.io_spec.scale**2
        self.info = BackendInfo(
            name=place.runtime,
            device=device,
            precision=running,
            steps=None,
            receptive_radius=None,
            model=str(path),
            weights_hash=content.sha256,
            scale=self.io_spec.scale,
            largest=self.io_spec.size,
            io_format=self.io_spec.summary,
        )

    def _run(self, lr: Batch) -> Batch:
        return self.io_spec.decode(self._output(lr), lr)

    def free_memory(self) -> int | None:
        """See `agsr.backend.Backend.free_memory`."""
        return self._device.free_memory() if self._device else None

    def _output(self, lr: Batch) -> Array:
        """Run a batch of an accepted size; return the network's output."""
        try:
            with translated_errors(f"{self.info.model} on {self.info.device}", lr.shape):
                return self._feed(self.io_spec, self.io_spec.encode(lr))
        except BackendError as error:
            least = min(self.io_spec.probed)
            if min(lr.shape[2:]) >= least:
                raise
            raise BackendError(
                f"{error}; sides from {least} pixels work: give --hints minimum={least}"
            ) from None

    def _feed(self, spec: IoSpec, values: Array) -> Array:
        """Run an encoded batch in parts of the network's batch size."""
        size = spec.batch or len(values)
        results = []
        for start in range(0, len(values), size):
            part = values[start : start + size]
            missing = size - len(part)
            whole = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])
            outputs = self._session.run([spec.output], {spec.input: whole})
            results.append(np.asarray(outputs[0])[: len(part)])
        return np.concatenate(results)

    def _probe(self, spec: IoSpec, values: Array) -> Array:
        try:
            return self._feed(spec, values)
        except Exception as error:  # ONNX Runtime raises its own types, derived from Exception
            raise ModelError(first_line(error)) from None


def open_foreign(
    path: Path,
    hints: str,
    place: Place,
    precision: str | None,
    threads: int | None,
    progress: Report | None,
) -> Backend:
    """Open another project's ONNX file at any place that runs ONNX files.

    Args:
        path: The file.
        hints: In the form of `Hints.parse`.
        place: ONNX Runtime, OpenVINO or TensorRT.
        precision: See `ForeignBackend`.
        threads: See `ForeignBackend`.
        progress: Called with the progress of a TensorRT engine's build; may cancel it.

    Raises:
        AgsrError: See `ForeignBackend`, or TensorRT can't run it.
    """
    known = Hints.parse(hints)
    if place.runtime != "trt":
        return ForeignBackend(path, known, place=place, precision=precision, threads=threads)
    return _open_engine(path, known, place, precision, progress)


def _open_engine(
    path: Path, hints: Hints, place: Place, precision: str | None, progress: Report | None
) -> Backend:
    """Build an engine of a graph that follows the contract but for its names, and open it.

    Raises:
        BackendError: The graph has another input or output than this project's, or a precision that
            TensorRT doesn't compute in.
    """
    from agsr.engines.foreign.contract_graph import contract_graph, contract_metadata
    from agsr.engines.tensorrt.backend import TrtBackend

    with ForeignBackend(path, hints) as probed:
        spec, info = probed.io_spec, probed.info
    running = _running_precision(path, info.precision, place, precision)
    _check_for_tensorrt(path, spec, running)
    content = path.read_bytes()
    check_self_contained(content, str(path))
    metadata = contract_metadata(spec, cast("Precision", running), info.weights_hash)
    adapted = contract_graph(content, spec, metadata, str(path))
    opened = TrtBackend(path, report=progress, device=place.index, content=adapted)
    opened.info = replace(opened.info, steps=None, receptive_radius=None, io_format=spec.summary)
    opened.tile_align = spec.rule.tile_align
    return opened


def _check_for_tensorrt(path: Path, spec: IoSpec, precision: str) -> None:
    """Reject a graph that TensorRT can't run as one of this project.

    Raises:
        BackendError: Its input, output or precision differ.
    """
    reason = ""
    if not spec.follows_contract:
        reason = (
            "runs networks that take and return NCHW float32 RGB, white is 1, of any size; this "
            f"one takes {spec.summary}"
        )
    elif precision not in PRECISIONS:
        reason = f"computes in {', '.join(PRECISIONS)}; this network is {precision}"
    if reason:
        raise BackendError(
            f"{path}: TensorRT {reason}: run it with --backend ort, with --provider cuda on a GPU, "
            "or with --backend openvino"
        )


def _running_precision(path: Path, graph: str, place: Place, requested: str | None) -> str:
    """Return the precision that a graph runs in: its own, or for fp32 one that its runtime offers.

    Raises:
        BackendError: It can't run in the requested precision.
    """
    choices = RUNTIMES[place.runtime].precisions
    remedy = f"export its network in {requested} where it comes from, or remove --precision"
    return running_precision(path, graph, requested, choices, f"'{place}'", remedy)


def _open(path: Path, place: Place, precision: str, threads: int | None) -> tuple[Any, str]:
    """Open a session, on the provider alone or else with the CPU; return it and its devices."""
    if place.runtime == "openvino":
        choices = RUNTIMES["openvino"].precisions
        running = precision if precision in choices else "fp32"
        session = open_compiled(path, running, threads, device=place.device)
        return session, place.device.upper()
    load = partial(open_session, path, place.kind, threads, device=place.index)
    try:
        return load(), SessionDevice(place.kind, place.index).name
    except ModelError:
        if place.kind == "cpu":
            raise
    session = load(exclusive=False)
    return session, f"{SessionDevice(place.kind, place.index).name} and CPUExecutionProvider"
