"""The API's routes: a picture in, a picture out; jobs for what takes long; models and health."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive

from agsr._version import __version__
from agsr.engines.batch.plan import DEFAULT_EXTENSION
from agsr.errors import ImageError
from agsr.image.encode import FORMATS, check_format
from agsr.serve.job import MAX_WARNINGS, Job, State
from agsr.serve.openapi import openapi
from agsr.serve.options import RequestOptions, clean_name, parse_options
from agsr.serve.problems import Problem
from agsr.serve.sending import ResultResponse, event_text
from agsr.serve.uploads import Upload, declared_length, receive_upload, size_by_header
from agsr.video.formats import WRITABLE, can_read_videos, is_video, result_ending

if TYPE_CHECKING:
    from agsr.serve.app import Serving

EVENT_SECONDS = 0.2
"""Between two looks at a job's progress."""

SILENCE_SECONDS = 15.0
"""Between two lines that show that an event stream is alive."""


def _serving(request: Request) -> Serving:
    serving: Serving = request.app.state.serving
    return serving


async def upscale(request: Request) -> Response:
    """Upscale a picture: the answer is the file that ``agsr infer`` writes."""
    serving = _serving(request)
    accept = request.headers.get("accept", "*/*")
    job = await _submitted(request, accept, is_kept=False)
    board = serving.board
    try:
        if not await _finished_before_client_leaves(job, request.receive):
            board.remove(job)
            return Response(status_code=499)
        if job.problem is not None:
            raise job.problem
        if job.state is not State.DONE:
            raise Problem(503, "cancelled", "the work was cancelled")
    except BaseException:
        board.remove(job)
        raise
    return ResultResponse(job, serving.metrics, lambda: board.remove(job))


async def _finished_before_client_leaves(job: Job, receive: Receive) -> bool:
    """Wait until a job is finished; False if its client goes away before."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    leaving, finished = asyncio.create_task(gone()), asyncio.create_task(job.finished.wait())
    try:
        await asyncio.wait({leaving, finished}, return_when=asyncio.FIRST_COMPLETED)
        return finished.done()
    finally:
        for task in (leaving, finished):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def create_job(request: Request) -> Response:
    """Take a picture or a video into the queue."""
    job = await _submitted(request, None, is_kept=True)
    location = f"{_base(request)}/{job.id}"
    return JSONResponse(_described(request, job), 202, {"Location": location} | _NO_STORE)


_NO_STORE = {"Cache-Control": "no-store"}


async def _submitted(request: Request, accept: str | None, is_kept: bool) -> Job:
    """Receive an upload, check what can be checked before it runs, and queue it."""
    serving = _serving(request)
    query = request.query_params.multi_items()
    options = parse_options(query, serving.settings, accept)
    began = time.monotonic()
    with serving.board.place(declared_length(request.scope) or 0) as folder:
        upload = await receive_upload(request, folder, options.name)
        serving.metrics.seconds("receive", time.monotonic() - began)
        if upload.fields:
            pairs = [*query, *upload.fields]
            options = parse_options(pairs, serving.settings, accept)
        job = _job(upload, options, is_kept)
        _check_kind(job, upload)
        job.size = await size_by_header(upload, serving.settings)
        serving.board.submit(job)
    return job


def _job(upload: Upload, options: RequestOptions, is_kept: bool) -> Job:
    name = options.name or clean_name(upload.name)
    extension = _extension(upload.path.suffix, options.format)
    return Job(
        id=secrets.token_urlsafe(18),
        options=replace(options, name=name),
        folder=upload.path.parent,
        source=upload.path,
        target=upload.path.with_name(f"out{extension}"),
        extension=extension,
        is_video=upload.is_video,
        is_kept=is_kept,
    )


def _extension(suffix: str, form: str | None) -> str:
    """Return the ending of a result."""
    if is_video(suffix):
        return result_ending(suffix) if form in (None, "same") else f".{form}"
    if form == "same":
        return suffix if suffix in FORMATS else DEFAULT_EXTENSION
    return DEFAULT_EXTENSION if form is None else f".{form}"


def _check_kind(job: Job, upload: Upload) -> None:
    """Reject what no file of this kind could satisfy.

    Raises:
        Problem: The format is of the other kind, or an option has no effect.
    """
    options = job.options
    if not job.is_kept and upload.is_video:
        raise Problem(415, "video", "a video takes long; send it to /v1/jobs")
    video_result = job.extension in WRITABLE
    if upload.is_video != video_result:
        both = ("a video", "an image") if upload.is_video else ("an image", "a video")
        detail = f"{both[0]} can't become {both[1]}; choose another format"
        raise Problem(400, "bad_option", detail)
    unfit = _UNFIT[upload.is_video] & options.given
    if unfit:
        kind = "a video" if upload.is_video else "an image"
        raise Problem(400, "bad_option", f"{min(unfit)} has no effect: the input is {kind}")
    if not upload.is_video:
        try:
            check_format(job.result_name, job.extension, options.quality)
        except ImageError as error:
            raise Problem(400, "bad_option", str(error)) from None
        if options.normal_map and FORMATS[job.extension].lossy:
            raise Problem(400, "bad_option", "normal_map needs a lossless format; use png")


_UNFIT = {
    False: frozenset({"codec", "crf", "preset"}),
    True: frozenset({"quality", "separate_alpha", "normal_map"}),
}
"""Options that have no effect, by whether the input is a video."""


def _described(request: Request, job: Job) -> dict[str, object]:
    return job.described(_serving(request).board.position(job), _base(request))


def _base(request: Request) -> str:
    return f"{request.scope.get('root_path', '')}/v1/jobs"


def _found(request: Request) -> Job:
    return _serving(request).board.find(request.path_params["id"])


async def get_job(request: Request) -> Response:
    """Report a job."""
    return JSONResponse(_described(request, _found(request)), headers=_NO_STORE)


async def delete_job(request: Request) -> Response:
    """Cancel a job, or remove one that is finished, with its result."""
    _serving(request).board.delete(_found(request))
    return Response(status_code=204)


async def job_result(request: Request) -> Response:
    """Send a job's result, or a range of it."""
    job = _found(request)
    if job.problem is not None:
        raise job.problem
    if job.state is not State.DONE:
        end = "" if job.state.final else "; its events report the end"
        raise Problem(409, "not_done", f"the job is {job.state.value}{end}")
    return ResultResponse(job, _serving(request).metrics)


async def job_events(request: Request) -> Response:
    """Report a job's progress as server-sent events until it is finished."""
    headers = _NO_STORE | {"X-Accel-Buffering": "no"}
    return StreamingResponse(
        _events(request, _found(request)), media_type="text/event-stream", headers=headers
    )


async def _events(request: Request, job: Job) -> AsyncIterator[str]:
    last, sent = "", time.monotonic()
    while True:
        final = job.state.final  # before its text, so that the last event is that of the end
        text = event_text(_described(request, job))
        if text != last:
            last, sent = text, time.monotonic()
            yield text
        elif time.monotonic() - sent > SILENCE_SECONDS:
            sent = time.monotonic()
            yield ": still there\n\n"
        if final:
            return
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(job.finished.wait(), EVENT_SECONDS)


async def models(request: Request) -> Response:
    """List the weights, and the limits of this server."""
    serving = _serving(request)
    settings = serving.settings
    found = await asyncio.to_thread(serving.models.listed)
    limits = {
        "max_bytes": settings.max_bytes,
        "max_pixels": settings.max_pixels,
        "max_result_pixels": settings.max_result_pixels,
        "keep_minutes": settings.keep_minutes,
        "videos": can_read_videos(),
        "max_warnings": MAX_WARNINGS,
    }
    return JSONResponse({"version": __version__, "models": found, "limits": limits})


async def healthz(_: Request) -> Response:
    """Answer while the process lives."""
    return JSONResponse({"status": "ok"}, headers=_NO_STORE)


async def readyz(request: Request) -> Response:
    """Answer 200 when the network has warmed up, and until the server stops."""
    serving = _serving(request)
    if serving.board.draining:
        raise Problem(503, "stopping", "the server is stopping")
    if not serving.ready:
        raise Problem(503, "warming_up", "the network is loading", {"Retry-After": "5"})
    return JSONResponse({"status": "ready"}, headers=_NO_STORE)


async def metrics(request: Request) -> Response:
    """Report Prometheus metrics."""
    return PlainTextResponse(
        _serving(request).metrics.text(), media_type="text/plain; version=0.0.4", headers=_NO_STORE
    )


async def openapi_document(request: Request) -> Response:
    """Describe this API."""
    return JSONResponse(openapi(_serving(request).settings))


ROUTES = (
    Route("/v1/upscale", upscale, methods=["POST"]),
    Route("/v1/jobs", create_job, methods=["POST"]),
    Route("/v1/jobs/{id}", get_job, methods=["GET"]),
    Route("/v1/jobs/{id}", delete_job, methods=["DELETE"]),
    Route("/v1/jobs/{id}/events", job_events, methods=["GET"]),
    Route("/v1/jobs/{id}/result", job_result, methods=["GET"]),
    Route("/v1/models", models),
    Route("/healthz", healthz),
    Route("/readyz", readyz),
    Route("/metrics", metrics),
    Route("/openapi.json", openapi_document),
)
"""All routes of the API."""
