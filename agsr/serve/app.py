"""The ASGI application: routes, page, guard and the life of the workers.

`agsr.serve.server` runs it with uvicorn; any other ASGI server can, too.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from agsr.engines.open import open_backend
from agsr.serve.board import Board
from agsr.serve.guard import Guard
from agsr.serve.job import Job
from agsr.serve.metrics import Metrics
from agsr.serve.models import ModelPool, Open
from agsr.serve.options import parse_options
from agsr.serve.pages import page_routes
from agsr.serve.problems import Problem
from agsr.serve.routes import ROUTES
from agsr.serve.settings import ServeSettings
from agsr.serve.work import Done, collected_warnings, upscale_file
from agsr.system.atomic_file import temporary_folder
from agsr.system.quiet_stderr import quiet_decoders
from agsr.system.text import first_line

_log = logging.getLogger(__name__)

_WARM_UP = 64  # pixels a side


class Remote(Protocol):
    """Does the work elsewhere; see `agsr.serve.ray`."""

    def warm_up(self) -> None:
        """Return when a network has been loaded and run."""

    def work(self, job: Job) -> Done:
        """Do a job; called in a worker's thread."""


@dataclass
class Serving:
    """What the routes use; in ``app.state.serving`` while the application runs."""

    settings: ServeSettings
    metrics: Metrics
    models: ModelPool
    board: Board
    ready: bool = False
    """Whether the network has warmed up."""
    failed: bool = False
    """Whether the network can't be loaded."""
    remote: Remote | None = None

    async def warm_up(self, on_failure: Callable[[], object]) -> None:
        """Load the default network and run it once."""
        try:
            if self.remote is None:
                await asyncio.to_thread(run_once, self.models, self.settings)
            else:
                await asyncio.to_thread(self.remote.warm_up)
        except Exception as error:  # the server is useless without a network
            _log.error("%s", first_line(error))
            self.failed = True
            on_failure()
            return
        self.ready = True
        self.metrics.ready()


def run_once(models: ModelPool, settings: ServeSettings) -> None:
    """Load the default network, and run it on a small picture."""
    with models.upscaler(parse_options([], settings)) as upscaler:
        upscaler(np.zeros((_WARM_UP, _WARM_UP, 3), np.uint8))


def create_app(
    settings: ServeSettings | None = None,
    opener: Open = open_backend,
    on_failure: Callable[[], object] = lambda: None,
    remote: Remote | None = None,
) -> Starlette:
    """Return the application.

    Args:
        settings: Limits, names, weights; None for the defaults.
        opener: Loads a network; see `agsr.engines.open.open_backend`.
        on_failure: Called if the default network can't be loaded.
        remote: Does the work; None if this process does.
    """
    settings = settings or ServeSettings()
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        with ExitStack() as stack:
            stack.enter_context(quiet_decoders())
            stack.enter_context(_pillow_without_limit())
            stack.enter_context(collected_warnings())
            spool = stack.enter_context(temporary_folder(settings.spool))
            spool.chmod(0o700)
            models = ModelPool(settings, opener)
            stack.callback(models.close)
            work = remote.work if remote else _work(models, settings, metrics)
            board = Board(settings, spool, work, metrics)
            serving = Serving(settings, metrics, models, board, remote=remote)
            app.state.serving = serving
            tasks = [
                asyncio.create_task(serving.warm_up(on_failure)),
                asyncio.create_task(board.sweep()),
            ]
            yield
            await board.close()
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    origins = list(settings.allow_origins)
    cors = Middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "Range"],
        expose_headers=[
            "Agsr-Hint",
            "Agsr-Warning",
            "Content-Disposition",
            "Location",
            "Retry-After",
        ],
    )
    guard = Middleware(Guard, settings=settings, metrics=metrics)
    return Starlette(
        routes=[*ROUTES, *(page_routes() if settings.ui else [])],
        middleware=[*([cors] if origins else []), guard],
        exception_handlers={
            Problem: _answer_problem,
            HTTPException: _answer_http,
            ClientDisconnect: _answer_nobody,
            OSError: _answer_system,
            Exception: _answer_failure,
        },
        lifespan=lifespan,
    )


@contextmanager
def _pillow_without_limit() -> Iterator[None]:
    """Let Pillow open any header: `ServeSettings.max_pixels` takes the place of its limit."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _work(models: ModelPool, settings: ServeSettings, metrics: Metrics) -> Callable[[Job], Done]:
    def work(job: Job) -> Done:
        began = time.monotonic()
        with models.upscaler(job.options) as upscaler:
            metrics.seconds("load", time.monotonic() - began)
            return upscale_file(upscaler, job, settings)

    return work


async def _answer_problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response()


async def _answer_http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = _DETAILS.get(error.status_code, str(error.detail))
    code = _CODES.get(error.status_code, "http")
    return Problem(error.status_code, code, detail, error.headers).response()


async def _answer_nobody(_: Request, __: Exception) -> Response:
    return Response(status_code=499)  # as nginx logs it; nobody reads it


async def _answer_system(request: Request, error: Exception) -> Response:
    assert isinstance(error, OSError)
    _log.error("%s", error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return Problem(503, "disk_full", "the disk of the server is full").response()
    return await _answer_failure(request, error)


async def _answer_failure(_: Request, __: Exception) -> Response:
    return Problem(500, "internal", "the server failed; its log has the reason").response()


_CODES = {404: "not_found", 405: "wrong_method"}
_DETAILS = {
    404: "nothing is at this address; /openapi.json lists what there is",
    405: "this address has other methods; see the Allow header",
}
