"""The server on a Ray cluster: ``serve run agsr.serve.ray:app max_replicas=4``.

One replica is the front: the whole API and page of `agsr.serve.app`, with queue, jobs and files, so
that a job is known wherever a request arrives. The work is done by replicas of `Upscalers`, of
which Ray starts and stops as many as there is work for. Data flow: an upload's bytes → an upscaler
→ its progress, then its result in pieces → the front's file.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before ray is loaded

from ray import serve
from ray.exceptions import RayActorError
from starlette.applications import Starlette

from agsr.engines.request import takes_threads
from agsr.errors import ConfigurationError
from agsr.serve.app import create_app, run_once
from agsr.serve.job import Hint, Job
from agsr.serve.models import ModelPool
from agsr.serve.options import RequestOptions
from agsr.serve.settings import ServeSettings, kinds_of, those_of, value_of
from agsr.serve.work import Done, collected_warnings, upscale_file
from agsr.system.quiet_stderr import quiet_decoders
from agsr.system.text import first_line

_log = logging.getLogger(__name__)

PREFIX = "AGSR_SERVE_"
"""Of environment variables: ``AGSR_SERVE_MAX_REPLICAS=4``."""
_FRONT, _UPSCALERS = "agsr", "upscalers"
_PIECE = 1 << 20
_LOOK_SECONDS = 0.2
_RETRIES = 3
"""Further upscalers that get a job whose upscaler died."""

_LONGEST_JOB = 24 * 3600
"""Seconds that Ray waits for the job of a replica that it stops since there is less work."""

_ENDING = 30
"""Seconds that the front has, beyond the grace, to cancel what runs."""


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """What a cluster needs beside `ServeSettings`."""

    min_replicas: int = 1
    max_replicas: int = 4
    cpus: int = 2
    """Of each replica; it runs as many threads where the CPU computes."""
    gpus: float = 0
    """Of each replica; with some, ``auto`` uses them."""


_WORDS = ("backend", "precision", "provider", "device", "url", "hints")
RUNNING = {"steps": int, **dict.fromkeys(_WORDS, str)}
"""Options of the network."""


def app(given: Mapping[str, str]) -> serve.Application:
    """Return the application that ``serve run agsr.serve.ray:app NAME=VALUE …`` runs.

    Args:
        given: Fields of `ClusterOptions` and `ServeSettings`, and `RUNNING`; names that are missing
            are looked up in the environment, in upper case after `PREFIX`. Other variables that
            begin so are ignored: Kubernetes sets ``AGSR_SERVE_SVC_SERVICE_HOST`` and the like.

    Raises:
        ConfigurationError: A name that was given is unknown, or a value can't be read.
    """
    cluster, settings = parse(given, os.environ)

    def build() -> Starlette:
        name = serve.get_replica_context().app_name
        remote = Remote(serve.get_deployment_handle(_UPSCALERS, name))
        return create_app(settings, remote=remote)

    front = serve.deployment(
        name=_FRONT,
        num_replicas=1,
        max_ongoing_requests=500,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=settings.grace + _ENDING,
    )(serve.ingress(build)())
    bound: serve.Application = front.bind(upscalers_for(cluster).bind(settings))
    return bound


def upscalers_for(cluster: ClusterOptions) -> serve.Deployment:
    """Return the deployment of `Upscalers`."""
    scaling = {
        "min_replicas": cluster.min_replicas,
        "max_replicas": cluster.max_replicas,
        "target_ongoing_requests": 1,
    }
    return serve.deployment(
        name=_UPSCALERS,
        autoscaling_config=scaling,
        max_ongoing_requests=1,
        ray_actor_options={"num_cpus": cluster.cpus, "num_gpus": cluster.gpus},
        graceful_shutdown_timeout_s=_LONGEST_JOB,
    )(Upscalers)


def parse(
    given: Mapping[str, str], environment: Mapping[str, str]
) -> tuple[ClusterOptions, ServeSettings]:
    """Return the options of a cluster and of its server.

    >>> cluster, settings = parse({"weights": "gan", "cpus": "4"}, {"AGSR_SERVE_STEPS": "2"})
    >>> settings.running, cluster.max_replicas
    ({'steps': 2, 'threads': 4}, 4)
    """
    kinds = _kinds()
    named = {name.replace("-", "_"): text for name, text in given.items()}
    if unknown := sorted(named.keys() - kinds.keys()):
        raise ConfigurationError(f"no option named {unknown[0]!r}; known: {', '.join(kinds)}")
    variables = {name: environment.get(PREFIX + name.upper()) for name in kinds}
    variables["token"] = variables["token"] or environment.get("AGSR_TOKEN") or None
    asked = {name: text for name, text in variables.items() if text is not None} | named
    found = {name: value_of(name, text, kinds[name]) for name, text in asked.items()}
    cluster = ClusterOptions(**those_of(ClusterOptions, found))
    running = {name: found[name] for name in RUNNING if name in found}
    values = {"workers": cluster.max_replicas} | those_of(ServeSettings, found)
    settings = ServeSettings(running=running, **values)
    if cluster.gpus == 0 and takes_threads(settings.weights, running):
        running["threads"] = cluster.cpus
    return cluster, settings


def _kinds() -> dict[str, type[Any]]:
    """Return the type of every option; address and port are those of Ray's proxy."""
    known = kinds_of(ClusterOptions) | kinds_of(ServeSettings)
    unfit = {"running", "host", "port", "workers"}
    return {name: kind for name, kind in known.items() if name not in unfit} | RUNNING


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A job on its way to an upscaler."""

    options: RequestOptions
    extension: str
    suffix: str
    """Of the input."""
    is_video: bool
    content: bytes


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A job that an upscaler has done, or failed to do; the pieces of its result follow."""

    done: Done
    warnings: list[str]
    hint: Hint | None
    options: RequestOptions


class Upscalers:
    """A replica that does jobs, one at a time.

    Args:
        settings: Of the server.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._models = ModelPool(settings)
        self._pool = ThreadPoolExecutor(1, "upscale")
        self._spool = Path(tempfile.mkdtemp(prefix="agsr-", dir=settings.spool))
        run_once(self._models, settings)

    async def upscale(self, asked: Asked) -> AsyncIterator[float | Ended | bytes]:
        """Do a job: yields shares of the work, the outcome, and the result in pieces."""
        folder = self._spool / secrets.token_hex(8)
        folder.mkdir(mode=0o700)
        job = _job(asked, folder)
        running = asyncio.get_running_loop().run_in_executor(self._pool, self._run, job)
        try:
            while not running.done():
                await asyncio.wait({running}, timeout=_LOOK_SECONDS)
                yield job.share
            done = running.result()
            yield Ended(done=done, warnings=job.warnings, hint=job.hint, options=job.options)
            if done.size is not None:
                for piece in _pieces(job.target):
                    yield piece
        finally:
            job.stop.set()
            await asyncio.wait({running})
            shutil.rmtree(folder, ignore_errors=True)

    def _run(self, job: Job) -> Done:
        with quiet_decoders(), collected_warnings():
            try:
                with self._models.upscaler(job.options) as upscaler:
                    done = upscale_file(upscaler, job, self._settings)
            except Exception as error:  # any failure affects one job only
                done = Done(None, type(error), first_line(error))
        return replace(done, error=job.plain(done.error))

    async def ready(self) -> bool:
        """Answer when the network has been loaded and run."""
        return True

    def __del__(self) -> None:
        """Remove the files of this replica."""
        shutil.rmtree(self._spool, ignore_errors=True)


def _job(asked: Asked, folder: Path) -> Job:
    source = folder / f"in{asked.suffix}"
    source.write_bytes(asked.content)
    return Job(
        id=folder.name,
        options=asked.options,
        folder=folder,
        source=source,
        target=folder / f"out{asked.extension}",
        extension=asked.extension,
        is_video=asked.is_video,
    )


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


class Remote:
    """The upscalers as the front sees them.

    Args:
        handle: Of their deployment.
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def warm_up(self) -> None:
        """Wait until a replica has loaded and run its network."""
        self._handle.ready.remote().result()

    def work(self, job: Job) -> Done:
        """Let a replica do a job; called in a worker's thread of the front."""
        for number in range(1, _RETRIES + 1):
            if (done := self._attempt(job, number)) is not None:
                return done
        return self._done(job)

    def _attempt(self, job: Job, number: int) -> Done | None:
        """Let a replica do a job; None if it died."""
        try:
            return self._done(job)
        except RayActorError as error:
            _log.warning("attempt %d of a job: its upscaler died: %s", number, first_line(error))
            return None

    def _done(self, job: Job) -> Done:
        asked = Asked(
            options=job.options,
            extension=job.extension,
            suffix=job.source.suffix,
            is_video=job.is_video,
            content=job.source.read_bytes(),
        )
        answers = self._handle.options(stream=True).upscale.remote(asked)
        try:
            return _received(job, answers)
        except BaseException:
            answers.cancel()
            raise


def _received(job: Job, answers: Iterator[Any]) -> Done:
    """Take in what an upscaler sends: shares, then the outcome, then the result's pieces."""
    while not isinstance(answer := next(answers), Ended):
        job.progress(answer)
    job.options, job.warnings, job.hint = answer.options, answer.warnings, answer.hint
    if answer.done.size is not None:
        with job.target.open("wb") as file:
            for piece in answers:
                file.write(piece)
    return answer.done
