"""The backend for ×4 networks of others: an ONNX file that keeps no contract of ours.

Data flow: file → `agsr.engines.onnx_file.inspect` (what it holds) → session →
`agsr.engines.foreign.probe` (how it wants its pixels) → the same batches in and out as every
`agsr.backend.Backend`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from agsr.backend import Backend, BackendInfo, Batch, translated_errors
from agsr.contract import SCALE
from agsr.engines.foreign.io_spec import Array, Hints, Ports
from agsr.engines.foreign.probe import find_ports
from agsr.engines.onnx_file.inspect import read_content
from agsr.engines.places import Place
from agsr.engines.runtimes.onnxruntime_session import PROVIDERS, open_session
from agsr.engines.runtimes.openvino_session import open_compiled
from agsr.errors import BackendError, BackendRequestError, ModelError
from agsr.system.text import first_line


class ForeignBackend(Backend):
    """Runs any ONNX network that takes a picture and gives it four times as high and as wide.

    >>> from agsr import Upscaler
    >>> upscaler = Upscaler(backend=ForeignBackend(Path("other_x4.onnx")))  # doctest: +SKIP

    Layout, element type, range, channels and the sizes it takes are found by running it; `ports`
    tells what was found. The order of colours can't be: it is RGB unless the hints say otherwise.

    Args:
        path: ONNX file.
        hints: What is known beforehand and need not be found.
        place: ONNX Runtime or OpenVINO; None means ONNX Runtime's CPU provider, which also runs the
            nodes that another of its providers can't, and `Backend.info` reports that.
        precision: Arithmetic for an fp32 graph: fp32, or what OpenVINO can run it in.
        threads: Threads on a CPU, at most one per core; None means one per core.

    Raises:
        ModelError: The file is no such network, or how to feed it can't be found.
        BackendError: The provider isn't available here, or can't do what is asked.
        MissingDependencyError: onnx, or what is to run it, is not installed.
    """

    ports: Ports
    """How the network is fed."""

    def __init__(
        self,
        path: Path,
        hints: Hints | None = None,
        *,
        place: Place | None = None,
        precision: str = "fp32",
        threads: int | None = None,
    ) -> None:
        content = read_content(path)
        place = place or Place("ort")
        self._session, device = _open(path, place, precision, threads)
        self.ports = find_ports(self._session, self._probe, hints or Hints(), str(path))
        self.info = BackendInfo(
            name=place.runtime,
            device=device,
            precision=precision if content.precision == "fp32" else content.precision,
            steps=None,
            receptive_radius=None,
            model=str(path),
            weights_hash=content.sha256,
            largest=self.ports.size,
        )

    def _run(self, lr: Batch) -> Batch:
        height, width = lr.shape[2:]
        largest = self.ports.size
        if largest and (height > largest[0] or width > largest[1]):
            raise BackendError(
                f"{self.info.model} takes {largest[0]}x{largest[1]} pixels, got {height}x{width}; "
                "cut the image into tiles"
            )
        padded = self.ports.padded(lr)
        with translated_errors(f"{self.info.model} on {self.info.device}", padded.shape):
            result = self._feed(self.ports, self.ports.encode(padded))
        sr = self.ports.decode(result, padded)
        return np.ascontiguousarray(sr[:, :, : height * SCALE, : width * SCALE])

    def _feed(self, ports: Ports, values: Array) -> Array:
        """Run an encoded batch in as many parts as the network's batch size asks for."""
        size = ports.batch or len(values)
        results = []
        for start in range(0, len(values), size):
            part = values[start : start + size]
            missing = size - len(part)
            whole = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])
            outputs = self._session.run([ports.output], {ports.input: whole})
            results.append(np.asarray(outputs[0])[: len(part)])
        return np.concatenate(results)

    def _probe(self, ports: Ports, values: Array) -> Array:
        try:
            return self._feed(ports, values)
        except Exception as error:  # ONNX Runtime raises its own types, derived from Exception
            raise ModelError(first_line(error)) from None


def _open(path: Path, place: Place, precision: str, threads: int | None) -> tuple[Any, str]:
    """A session, on a provider alone or else shared with the CPU; and the words for it."""
    if place.runtime == "openvino":
        return open_compiled(path, precision, threads), "CPU"
    if precision != "fp32":
        raise BackendRequestError(f"provider '{place.kind}' runs in fp32, not in {precision}")
    name = PROVIDERS[place.kind].ort_name if place.kind in PROVIDERS else place.kind
    load = partial(open_session, path, place.kind, threads, device=place.index)
    try:
        return load(), name
    except ModelError:
        if place.kind == "cpu":
            raise
    session = load(exclusive=False)
    return session, f"{name} and CPUExecutionProvider"
