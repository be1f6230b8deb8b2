"""One connection to a Triton server, by gRPC or HTTP: the same calls and errors for both.

Data flow: `Address` → tritonclient → JSON descriptions of models, and results of requests, which
`agsr.engines.triton.lane` sends. A client belongs to the thread that made it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from agsr.engines.foreign.io_spec import Array
from agsr.engines.triton.address import Address
from agsr.errors import BackendError, ServerError
from agsr.system.optional_import import require

_TRANSPORT = {"grpc": "grpc", "http": "geventhttpclient"}
"""What tritonclient needs for a protocol; without it, its import fails with a RuntimeError."""

_AWAY = ("UNAVAILABLE", "502", "503")
"""Statuses of a server that can't be reached, or is starting or stopping."""

_LATE = ("DEADLINE_EXCEEDED", "499", "504")

_UNKNOWN = "unknown model"
"""In the message of a server that is there, but has no such model."""

_LOST = ("HTTPConnectionClosed", "HTTPParseError")
"""Errors of geventhttpclient when the connection ends within an answer."""


class ServerAwayError(ServerError):
    """The server can't be reached; another attempt may succeed."""


class ServerLateError(ServerError):
    """The server didn't answer within the time."""


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in shared memory."""

    region: str
    offset: int
    nbytes: int


@dataclass(frozen=True)
class Given:
    """An input of a request."""

    name: str
    kind: str
    """Element type, by Triton's name."""
    shape: tuple[int, ...]
    values: Array | Place
    """The input itself, or where it lies in shared memory."""


class Client:
    """A connection.

    Args:
        address: The server.

    Raises:
        MissingDependencyError: tritonclient, or what it needs for the protocol, is not installed.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        for module in ("tritonclient", _TRANSPORT[address.protocol]):
            require(module, extra="triton", purpose="--backend triton")
        name = f"tritonclient.{address.protocol}"
        self._api = require(name, extra="triton", purpose="--backend triton")
        self._utils = require("tritonclient.utils", extra="triton", purpose="--backend triton")
        on_grpc, seconds = address.protocol == "grpc", address.timeout
        limits = {} if on_grpc else {"connection_timeout": seconds, "network_timeout": seconds}
        self._limit = {"client_timeout": seconds} if on_grpc else {}
        self._json = {"as_json": True} if on_grpc else {}
        self._client = self._api.InferenceServerClient(
            address.target, ssl=address.is_secure, **limits
        )

    def __str__(self) -> str:
        return str(self._address)

    def metadata(self, model: str) -> dict[str, Any]:
        """Return the inputs and outputs of a model, as in the protocol."""
        with self._translated(f"model '{model}'"):
            return dict(self._client.get_model_metadata(model, **self._json, **self._limit))

    def config(self, model: str) -> dict[str, Any]:
        """Return the configuration of a model as JSON."""
        with self._translated(f"model '{model}'"):
            found = self._client.get_model_config(model, **self._json, **self._limit)
        return dict(found.get("config", found))

    def models(self) -> list[dict[str, Any]]:
        """List the models of the repository: ``name``, ``state`` and ``reason``, where known."""
        with self._translated("its list of models"):
            found = self._client.get_model_repository_index(**self._json, **self._limit)
        return list(found.get("models", []) if isinstance(found, dict) else found)

    def infer(
        self, model: str, given: Given, output: str, into: Place | None = None
    ) -> tuple[Array | None, tuple[int, ...]]:
        """Run a model.

        Args:
            model: Its name.
            given: Its input.
            output: Name of its output.
            into: Where in shared memory the output goes; None to receive it.

        Returns:
            The output, None if it is in shared memory, and its shape.

        Raises:
            ServerAwayError, ServerLateError, BackendError: The server can't be reached, takes too
                long, or reports an error.
        """
        source = self._api.InferInput(given.name, list(given.shape), given.kind)
        if isinstance(given.values, Place):
            place = given.values
            source.set_shared_memory(place.region, place.nbytes, offset=place.offset)
        else:
            source.set_data_from_numpy(given.values)
        wanted = self._api.InferRequestedOutput(output)
        if into is not None:
            wanted.set_shared_memory(into.region, into.nbytes, offset=into.offset)
        with self._translated(f"model '{model}' on an input of {given.shape}"):
            answer = self._client.infer(model, [source], outputs=[wanted], **self._limit)
            if into is None:
                received = answer.as_numpy(output)
                return received, () if received is None else received.shape
            found = answer.get_output(output)
        sizes = found["shape"] if isinstance(found, dict) else found.shape
        return None, tuple(map(int, sizes))

    def register(self, region: str, key: str, nbytes: int) -> None:
        """Make a region of shared memory known to the server.

        Raises:
            BackendError: It can't open it, as on another host.
        """
        with self._translated("shared memory"):
            self._client.register_system_shared_memory(region, key, nbytes, **self._limit)

    def unregister(self, region: str) -> None:
        """Make the server forget a region."""
        with self._translated("shared memory"):
            self._client.unregister_system_shared_memory(region, **self._limit)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        """Translate tritonclient's errors, and those of its transports."""
        try:
            yield
        except self._utils.InferenceServerException as error:
            status, message = str(error.status() or ""), str(error.message() or error)
            raise self._error(what, status.rpartition(".")[2], message) from None
        except TimeoutError:
            raise self._error(what, "DEADLINE_EXCEEDED", "timeout") from None
        except OSError as error:
            raise self._error(what, "UNAVAILABLE", error.strerror or str(error)) from None
        except Exception as error:  # geventhttpclient's are derived from Exception alone
            if type(error).__name__ not in _LOST:
                raise
            raise self._error(what, "UNAVAILABLE", "the connection was closed") from None

    def _error(self, what: str, status: str, message: str) -> BackendError:
        address, reason = self._address, _reason(message)
        if status in _LATE or "timed out" in reason or "Deadline Exceeded" in reason:
            return ServerLateError(
                f"{address}: no answer for {what} within {address.timeout:g} s; the server may be "
                f"busy: allow more time (--url '{address}?timeout={2 * address.timeout:g}'), or "
                "use smaller tiles (--tile)"
            )
        if status in _AWAY and _UNKNOWN not in reason:
            return ServerAwayError(
                f"{address}: no Triton server answers ({reason}); check --url, or start one: "
                "tritonserver --model-repository FOLDER"
            )
        return BackendError(f"{address}: {what}: {reason}")


def _reason(message: str) -> str:
    """Return the first line of a message; of gRPC's chain of causes only the last.

    >>> _reason("failed to connect to all addresses; last error: UNKNOWN: Connection refused")
    'Connection refused'
    """
    line = message.strip().partition("\n")[0]
    return line.rpartition(": ")[2] if "last error:" in line else line
