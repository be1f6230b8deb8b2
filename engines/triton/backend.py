"""Backend that sends batches to a Triton server, several at a time.

Data flow: batches → format of the model (`agsr.engines.foreign.io_spec`) → `Lane`s, in turn →
server → results in order. The model is found by `agsr.engines.triton.served`; one without this
project's metadata is probed like another project's ONNX file.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import nullcontext

import numpy as np

from agsr.backend import Backend, BackendInfo, Batch, is_out_of_memory
from agsr.contract import ModelMetadata
from agsr.engines.foreign.hints import RGBA, Hints
from agsr.engines.foreign.io_spec import Array, IoSpec
from agsr.engines.foreign.probe import find_io_spec
from agsr.engines.onnx_file.checks import described, tile_align
from agsr.engines.triton.address import Address
from agsr.engines.triton.lane import Exchange, Lane
from agsr.engines.triton.served import (
    HINTS,
    WHOLE,
    contract_spec,
    find_model,
    find_whole,
    names_of,
)
from agsr.errors import BackendError, HintsError, ModelError, ServerError
from agsr.system.text import first_line

_PRECISIONS = {"FP16": "fp16"}
"""Arithmetic of a model that doesn't declare it, judged by its input."""


class TritonBackend(Backend):
    """Runs a model of a Triton server.

    >>> address = Address.parse("grpc://127.0.0.1:8001")
    >>> backend = TritonBackend(address, "psnr", steps=4)  # doctest: +SKIP

    Thread-safe: several threads may upscale at the same time, and their requests share batches
    where the server's model joins them. Inputs that are smaller than the tiles of a model for one
    size go to the model of the same network for any size, if the server runs it.

    Args:
        address: The server.
        weights: Name of a model, or weights that ``agsr export --triton`` has written there.
        steps: Time steps; None means those of the model.
        precision: Arithmetic, which must be the model's; None means the model's.
        hints: What is known of another project's model; empty means what its configuration says.

    Raises:
        BackendError: The server can't be reached, or has no such model.
        ModelError: The model doesn't upscale pictures, or its format can't be found.
        MissingDependencyError: tritonclient is not installed.
    """

    bytes_per_pixel = 6_000

    def __init__(
        self,
        address: Address,
        weights: str,
        *,
        steps: int | None = None,
        precision: str | None = None,
        hints: str = "",
    ) -> None:
        self.turn = nullcontext()
        self._lanes = [Lane(address) for _ in range(address.requests)]
        self._next = itertools.count()
        self._whole: str | None = None  # the model for inputs that a tile's would have to pad
        try:
            first = self._lanes[0]
            names = names_of(weights, steps, precision)
            self._model = first.submit(lambda: find_model(first.client, names)).result()
            self._source = f"{address}: model '{self._model.name}'"
            metadata = self._model.metadata(self._source)
            self._spec = self._found_spec(metadata, hints)
            self.info = self._info(address, metadata)
        except BaseException:
            self.close()
            raise
        if WHOLE in self._model.parameters:
            self._whole = first.submit(lambda: find_whole(first.client, self._model)).result()
        self.sizes = self._spec.rule
        self.tile_align = tile_align(metadata) if metadata else self.sizes.tile_align
        if metadata and metadata.bytes_per_pixel:
            self.bytes_per_pixel = metadata.bytes_per_pixel

    def _found_spec(self, metadata: ModelMetadata | None, hints: str) -> IoSpec:
        if metadata is not None:
            if hints:
                raise HintsError(
                    f"{self._source} describes itself, so hints have no effect; remove them"
                )
            return contract_spec(self._model, metadata)
        known = Hints.parse(hints or self._model.parameters.get(HINTS, ""))
        return find_io_spec(self._model, self._probe, known, self._source)

    def _info(self, address: Address, metadata: ModelMetadata | None) -> BackendInfo:
        parameters, kind = self._model.parameters, self._model.inputs[0].kind
        own = (
            described(metadata)
            if metadata
            else {
                "steps": None,
                "receptive_radius": None,
                "weights_hash": parameters.get("agsr.weights_hash", ""),
                "scale": self._spec.scale,
                "largest": self._spec.size,
                "io_format": self._spec.summary,
            }
        )
        declared = metadata.precision if metadata else parameters.get("agsr.precision", "")
        return BackendInfo(
            name="triton",
            device=str(address),
            precision=declared or _PRECISIONS.get(kind, "fp32"),
            model=self._model.name,
            **own,
        )

    def _run(self, lr: Batch) -> Batch:
        return self._submit(lr).result()

    def _run_many(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Keep as many requests in flight as there are lanes; yield results in order."""
        waiting: deque[Future[Batch]] = deque()
        try:
            for lr in batches:
                waiting.append(self._submit(lr))
                if len(waiting) >= len(self._lanes):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _submit(self, lr: Batch) -> Future[Batch]:
        lane = self._lanes[next(self._next) % len(self._lanes)]
        return lane.submit(self._upscaled, lane, lr)

    def _upscaled(self, lane: Lane, lr: Batch) -> Batch:
        """Upscale a batch; called in the lane's thread."""
        try:
            return self._spec.decode(self._feed(lane, self._spec, self._spec.encode(lr)), lr)
        except BackendError as error:
            if is_out_of_memory(error):
                raise MemoryError(first_line(error)) from None
            raise

    def _feed(self, lane: Lane, spec: IoSpec, values: Array, known: bool = True) -> Array:
        """Send an encoded batch in parts of the model's batch size.

        Args:
            lane: Sends it.
            spec: Format of input and output.
            values: The batch.
            known: Whether the scale in the format is right, not a guess.
        """
        size = spec.batch or self._model.max_batch or len(values)
        results = []
        for start in range(0, len(values), size):
            part = values[start : start + size]
            missing = (spec.batch or len(part)) - len(part)
            whole = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])
            results.append(lane.exchange(self._exchange(spec, whole, known), whole)[: len(part)])
        return results[0] if len(results) == 1 else np.concatenate(results)

    def _exchange(self, spec: IoSpec, values: Array, known: bool) -> Exchange:
        pixels = values.size // spec.channels * spec.scale**2
        return Exchange(
            model=self._name_for(spec, values),
            input=spec.input,
            output=spec.output,
            input_kind=self._model.inputs[0].kind,
            output_type=spec.output_type,
            output_bytes=pixels * RGBA * np.dtype(spec.output_type).itemsize if known else None,
        )

    def _name_for(self, spec: IoSpec, values: Array) -> str:
        """Return the model for an encoded input."""
        size = values.shape[2:] if spec.input_layout == "NCHW" else values.shape[1:3]
        other = self._whole if spec.rule.fixed not in (None, size) else None
        return other or self._model.name

    def _padded(self, lr: Batch) -> Batch:
        """See `Backend._padded`; what another model accepts as it is isn't padded."""
        padded = super()._padded(lr)
        if self._whole is None or padded.shape == lr.shape:
            return padded
        return np.ascontiguousarray(lr)

    def _probe(self, spec: IoSpec, values: Array) -> Array:
        """Run the model for `agsr.engines.foreign.probe`.

        Raises:
            ModelError: It can't run such an input.
            BackendError: The server can't be reached, or doesn't answer.
        """
        lane = self._lanes[0]
        try:
            return lane.submit(self._feed, lane, spec, values, known=False).result()
        except ServerError:
            raise
        except BackendError as error:
            raise ModelError(first_line(error)) from None

    def close(self) -> None:
        """See `Backend.close`; requests in flight are finished first."""
        for lane in self._lanes:
            lane.close()
