"""A server that speaks Triton's gRPC protocol by tritonclient's own messages, in this process.

Its models repeat pixels; what goes wrong is set by the test.
"""

from __future__ import annotations

import mmap
import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf import text_format
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc
from tritonclient.utils import np_to_triton_dtype, triton_to_np_dtype

from agsr.contract import ModelMetadata

REPEAT = """
name: "repeat-1"
max_batch_size: 4
input [ { name: "lr", data_type: TYPE_FP32, dims: [3, -1, -1] } ]
output [ { name: "sr", data_type: TYPE_FP32, dims: [3, -1, -1] } ]
"""
"""A model of ×4 that follows the contract."""

FOREIGN = """
name: "other"
input [ { name: "picture", data_type: TYPE_UINT8, dims: [-1, -1, -1, 3] } ]
output [ { name: "enlarged", data_type: TYPE_UINT8, dims: [-1, -1, -1, 3] } ]
"""
"""Another project's model, of ×2, without any parameters."""


def described(**changes: Any) -> dict[str, str]:
    """The parameters that an export writes."""
    values: dict[str, Any] = {
        "steps": 1,
        "precision": "fp32",
        "receptive_radius": 3,
        "config": '{"a": "\\"b\\""}',
        "weights_hash": "f" * 64,
        "version": "1",
    }
    return ModelMetadata(**(values | changes)).to_properties()


def config(text: str = REPEAT, parameters: dict[str, str] | None = None) -> Any:
    """A configuration as the server holds it."""
    parsed = text_format.Parse(text, model_config_pb2.ModelConfig())
    for key, value in (parameters or {}).items():
        parsed.parameters[key].string_value = value
    return parsed


@dataclass
class Faults:
    """What goes wrong; counted down where it is a number."""

    away: int = 0
    """Requests to answer with UNAVAILABLE."""
    delay: float = 0.0
    """Seconds that a request takes."""
    together: int = 0
    """Requests that have to be in flight at the same time before any is answered."""
    overtaken: threading.Barrier | None = None
    """Where the first request waits for the second one's output, and the second for the first's;
    each has read its input before."""
    error: str = ""
    """Message of an error for every request."""
    scale: int | None = None
    """Scale of results, other than the model's."""
    names_no_output: bool = False
    maps_memory: bool = True
    """Whether shared memory can be registered."""


@dataclass
class Seen:
    """What the clients did."""

    requests: int = 0
    largest_batch: int = 0
    most_at_once: int = 0
    by_memory: int = 0
    """Requests whose output went to shared memory."""
    sizes: defaultdict[str, set[tuple[int, ...]]] = field(default_factory=lambda: defaultdict(set))
    """Heights and widths of inputs, or its axes in their place, by model."""
    registered: set[str] = field(default_factory=set)


class Server(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """The models of a repository.

    Args:
        configs: Their configurations.
    """

    def __init__(self, *configs: Any) -> None:
        self.configs = {each.name: each for each in configs}
        self.not_ready: dict[str, str] = {}
        self.faults, self.seen = Faults(), Seen()
        self.url = ""
        self._lock, self._running, self._slow = threading.Lock(), 0, threading.Lock()
        self._maps: dict[str, mmap.mmap] = {}

    def RepositoryIndex(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        answer = service_pb2.RepositoryIndexResponse()
        for name in self.configs:
            answer.models.add(name=name, version="1", state="READY")
        for name, reason in self.not_ready.items():
            answer.models.add(name=name, version="1", state="UNAVAILABLE", reason=reason)
        return answer

    def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        found = self._config(request.name, context)
        answer = service_pb2.ModelMetadataResponse(name=found.name, versions=["1"])
        axis = [-1] if found.max_batch_size else []
        for ports, listed in ((found.input, answer.inputs), (found.output, answer.outputs)):
            for port in ports:
                kind = model_config_pb2.DataType.Name(port.data_type).removeprefix("TYPE_")
                listed.add(name=port.name, datatype=kind, shape=[*axis, *port.dims])
        return answer

    def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        found = self._config(request.name, context)
        return service_pb2.ModelConfigResponse(config=found)

    def _config(self, name: str, context: Any) -> Any:
        if name not in self.configs:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{name}'")
        return self.configs[name]

    def SystemSharedMemoryRegister(self, request: Any, context: Any) -> Any:  # noqa: N802
        if not self.faults.maps_memory:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Unable to open shared memory region")
        handle = os.open(Path("/dev/shm") / request.key.lstrip("/"), os.O_RDWR)
        self._maps[request.name] = mmap.mmap(handle, request.byte_size)
        os.close(handle)
        self.seen.registered.add(request.name)
        return service_pb2.SystemSharedMemoryRegisterResponse()

    def SystemSharedMemoryUnregister(self, request: Any, _context: Any) -> Any:  # noqa: N802
        self._maps.pop(request.name).close()
        self.seen.registered.remove(request.name)
        return service_pb2.SystemSharedMemoryUnregisterResponse()

    def restart(self) -> None:
        """Forget shared memory, as a new process would."""
        self._maps.clear()
        self.seen.registered.clear()

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        with self._lock:
            self._running += 1
            self.seen.requests += 1
            self.seen.most_at_once = max(self.seen.most_at_once, self._running)
            away = self.faults.away > 0
            self.faults.away -= away
        try:
            if away:
                context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
            self._wait_for_others()
            time.sleep(self.faults.delay)
            if self.faults.error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, self.faults.error)
            return self._answer(request, context)
        finally:
            with self._lock:
                self._running -= 1

    def _wait_for_others(self) -> None:
        """Wait, at most for a while, until enough requests have been in flight together."""
        end = time.monotonic() + 30
        while self.seen.most_at_once < self.faults.together and time.monotonic() < end:
            time.sleep(0.005)

    def _answer(self, request: Any, context: Any) -> Any:
        found = self.configs[request.model_name]
        values = self._read(request, context)
        self.seen.sizes[found.name].add(values.shape[2:])
        self.seen.largest_batch = max(self.seen.largest_batch, len(values))
        last = found.output[0].dims[-1] == 3
        axes = (1, 2) if last else (2, 3)
        scale = self.faults.scale or (2 if last else 4)
        sr = np.ascontiguousarray(values.repeat(scale, axes[0]).repeat(scale, axes[1]))
        answer = service_pb2.ModelInferResponse(model_name=found.name, model_version="1")
        if self.faults.names_no_output:
            return answer
        answer.outputs.add(
            name=found.output[0].name, datatype=np_to_triton_dtype(sr.dtype), shape=sr.shape
        )
        barrier = self.faults.overtaken
        is_first = barrier is not None and self._slow.acquire(blocking=False)
        if barrier is not None and is_first:
            barrier.wait(30)
        self._write(sr, request, answer)
        if barrier is not None:
            if not is_first:
                barrier.wait(30)
            barrier.wait(30)
        return answer

    def _write(self, sr: NDArray[Any], request: Any, answer: Any) -> None:
        wanted = request.outputs[0].parameters
        if "shared_memory_region" in wanted:
            self.seen.by_memory += 1
            memory = self._maps[wanted["shared_memory_region"].string_param]
            offset = wanted["shared_memory_offset"].int64_param
            assert sr.nbytes <= wanted["shared_memory_byte_size"].int64_param
            np.ndarray(sr.shape, sr.dtype, memory, offset)[...] = sr
        else:
            answer.raw_output_contents.append(sr.tobytes())

    def _read(self, request: Any, context: Any) -> NDArray[Any]:
        (given,) = request.inputs
        kind, shape = triton_to_np_dtype(given.datatype), tuple(given.shape)
        if "shared_memory_region" not in given.parameters:
            return np.frombuffer(request.raw_input_contents[0], kind).reshape(shape)
        region = given.parameters["shared_memory_region"].string_param
        if region not in self._maps:
            reason = f"Unable to find shared memory region: '{region}'"
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, reason)
        memory = self._maps[region]
        offset = given.parameters["shared_memory_offset"].int64_param
        return np.ndarray(shape, kind, memory, offset).copy()


@contextmanager
def kserve(*configs: Any) -> Iterator[Server]:
    """A running server."""
    pool = ThreadPoolExecutor(8)
    running, server = grpc.server(pool), Server(*configs)
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(server, running)
    server.url = f"grpc://127.0.0.1:{running.add_insecure_port('127.0.0.1:0')}"
    running.start()
    try:
        yield server
    finally:
        running.stop(0).wait()
        pool.shutdown()
