"""Runs the application with uvicorn: listens, stops gracefully, and closes slow connections.

On the first Ctrl-C or SIGTERM new work is refused; what runs is finished, and its results can be
fetched, before the process exits with 0. A second signal cancels it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from agsr.engines.open import open_backend
from agsr.errors import BackendError
from agsr.serve.app import Serving, create_app
from agsr.serve.guard import HEADER_BYTES
from agsr.serve.models import Open
from agsr.serve.settings import ServeSettings

_CONNECTIONS = 500
"""Further connections are answered with 503."""

_IDLE_SECONDS = 20


_LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(message)s"}},
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": "plain"},
    },
    "loggers": {
        name: {"handlers": ["stderr"], "propagate": False}
        for name in ("uvicorn.error", "uvicorn.access")
    },
}
"""Of uvicorn: everything to stderr."""


class _Server(uvicorn.Server):
    """Finishes its work before it stops.

    Args:
        config: Of uvicorn.
        settings: Of the application.
        announce: Called with the address when the server listens.
    """

    def __init__(
        self, config: uvicorn.Config, settings: ServeSettings, announce: Callable[[str], object]
    ) -> None:
        super().__init__(config)
        self._settings, self._announce = settings, announce
        self._drains_until: float | None = None

    @property
    def _serving(self) -> Serving | None:
        application: Any = self.config.app
        return getattr(application.state, "serving", None)

    async def startup(self, sockets: Any = None) -> None:
        """Listen, and announce the address."""
        await super().startup(sockets)
        if self.started:
            port = self.servers[0].sockets[0].getsockname()[1]
            host = self._settings.host
            self._announce(f"http://{f'[{host}]' if ':' in host else host}:{port}/")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Finish what runs after the first signal, cancel it after the second."""
        if self._drains_until is None:
            self._drains_until = time.monotonic() + self._settings.grace
        elif not self.should_exit:
            self._drains_until = 0.0
        else:
            self.force_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Stop when all work is done, or has taken too long."""
        if self._drains_until is not None and self._serving is not None:
            board = self._serving.board
            if not board.draining:
                board.drain()
            if time.monotonic() > self._drains_until:
                board.cancel_all()
            if board.drained or time.monotonic() > self._drains_until:
                self.should_exit = True
        return await super().on_tick(counter)


def _protocol(header_seconds: float) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol with a limit on the time that a header may take."""

    class TimedProtocol(H11Protocol):
        _due: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._unwatch()
            super().connection_lost(exc)

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.conn.their_state is h11.SEND_BODY:  # of a request that was answered early
                self._watch(again=True)

        def _watch(self, again: bool = False) -> None:
            """Close the connection soon, while it is not within a request."""
            waits = again or self.conn.their_state is h11.IDLE or self._is_answered()
            if not waits or self.transport.is_closing():
                self._unwatch()
            elif self._due is None:
                self._due = self.loop.call_later(header_seconds, self._give_up)

        def _is_answered(self) -> bool:
            return self.cycle is not None and self.cycle.response_complete

        def _unwatch(self) -> None:
            if self._due is not None:
                self._due.cancel()
                self._due = None

        def _give_up(self) -> None:
            if not self.transport.is_closing():
                self.transport.close()

    return TimedProtocol


def serve(
    settings: ServeSettings,
    announce: Callable[[str], object],
    verbose: bool = False,
    opener: Open = open_backend,
) -> None:
    """Serve until a signal arrives.

    Args:
        settings: Address and limits.
        announce: Called with the address when the server listens.
        verbose: Log every request.
        opener: Loads a network; see `agsr.engines.open.open_backend`.

    Raises:
        BackendError: The address can't be used, or the network can't be loaded.
    """
    failures: list[str] = []

    def stop() -> None:
        failures.append("the network can't be loaded")
        server.should_exit = True

    app = create_app(settings, opener, stop)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        root_path=settings.root_path,
        http=_protocol(settings.header_seconds),
        ws="none",
        lifespan="on",
        log_config=_LOGGING,
        log_level="info" if verbose else "error",
        access_log=verbose,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=5,
        limit_concurrency=_CONNECTIONS,
        h11_max_incomplete_event_size=HEADER_BYTES,
    )
    server = _Server(config, settings, announce)
    try:
        server.run()
    except SystemExit:
        failures.append(f"can't listen on {settings.host}:{settings.port}; use another --port")
    if failures:
        raise BackendError(failures[0])
