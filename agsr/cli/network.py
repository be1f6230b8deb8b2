"""The network of a command: its scale before it is loaded, and what runs it when it is needed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click

from agsr.engines.places import Place

if TYPE_CHECKING:
    from agsr.engines.batch.plan import Job
    from agsr.engines.cluster.pool import ClusterPool
    from agsr.engines.cluster.request import ClusterRequest
    from agsr.engines.pool.pool import WorkerPool
    from agsr.engines.upscaler import Upscaler

    AnyPool = WorkerPool | ClusterPool
    """Processes on this machine, or actors on a cluster."""

_T = TypeVar("_T", "Upscaler", "AnyPool")


class Network:
    """The network of a run, opened as late as possible, and closed at the end of a block.

    Args:
        running: Options of `open_upscaler`.
        verbose: Print what runs to stderr.
        devices: Devices of worker processes; None to run in this process.
        cluster: The Ray cluster to run on instead.

    Raises:
        RequestError: A device is unknown, or not one of the backend's.
    """

    def __init__(
        self,
        running: Mapping[str, Any],
        verbose: bool = False,
        devices: str | None = None,
        cluster: ClusterRequest | None = None,
    ) -> None:
        self._running, self._verbose, self._devices = running, verbose, devices
        self._cluster = cluster
        self._upscaler: Upscaler | None = None
        self._pool: AnyPool | None = None
        if devices is not None:
            from agsr.engines.pool.devices import worker_devices

            worker_devices(devices, running["weights"], running)

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *_: object) -> None:
        for opened in (self._upscaler, self._pool):
            if opened is not None:
                opened.close()

    def scale(self) -> int:
        """Return the network's scale, which results are named by.

        The network is opened only if no file here declares the scale.
        """
        declared = self.declared_scale()
        if declared:
            return declared
        return (self.pool() if self.is_pool else self.upscaler()).info.scale

    @property
    def is_pool(self) -> bool:
        """Whether other processes run the network."""
        return self._devices is not None or self._cluster is not None

    def declared_scale(self) -> int | None:
        """Return the network's scale if it is known before the network is opened."""
        from agsr.engines.request import is_served
        from agsr.engines.weights_file import declared_scale

        served = is_served(self._running["backend"], self._running["url"])
        return None if served else declared_scale(self._running["weights"])

    def upscaler(self, jobs: Sequence[Job] = ()) -> Upscaler:
        """Return the upscaler for a plan's jobs, finished ones included: a run that is resumed uses
        the network that the first one used."""
        if self._upscaler is None:
            self._upscaler = self._open(jobs, open_upscaler)
        return self._upscaler

    def pool(self, jobs: Sequence[Job] = ()) -> AnyPool:
        """Return the worker processes on the devices, like `upscaler`; one of them is open."""
        if self._pool is None:
            wanted = self._devices if self._cluster is None else self._cluster
            self._pool = self._open(jobs, partial(open_pool, wanted or ""))
        return self._pool

    def _open(self, jobs: Sequence[Job], opening: Callable[..., _T]) -> _T:
        from agsr.engines.batch.headers import count_pixels

        if self._verbose and logging.lastResort is not None:
            logging.getLogger("agsr").setLevel(logging.INFO)
            logging.lastResort.setLevel(logging.INFO)
        started = time.perf_counter()
        work = count_pixels([job.source for job in jobs]) if jobs else None
        opened = opening(work=work, **self._running)
        if self._verbose:
            info = opened.info
            text = f"{info.summary}, in {time.perf_counter() - started:.2f} s"
            click.echo(f"{text}: {info.reason}", err=True)
        return opened


def open_upscaler(
    weights: str, steps: int | None, backend: str, tile: Any, halo: Any, **options: Any
) -> Upscaler:
    """The `Upscaler` that `running_options` ask for, with a bar while an engine is built."""
    from agsr.engines.upscaler import Upscaler

    options |= {"backend": backend, "steps": steps, "tile": tile, "halo": halo}
    if not _may_build(backend, options):
        return Upscaler(weights, **options)
    from agsr.cli.output.tables import build_progress

    with build_progress(f"building an engine of {weights}") as progress:
        return Upscaler(weights, progress=progress, **options)


def open_pool(wanted: str | ClusterRequest, weights: str, **options: Any) -> AnyPool:
    """The pool that ``--devices`` or ``--ray`` asks for, opened like `open_upscaler`.

    Raises:
        AgsrError: The network can't be opened on any device; no process is left.
    """
    pool = _new_pool(wanted, weights, options)
    try:
        if not _may_build(options["backend"], options):
            pool.open()
            return pool
        from agsr.cli.output.tables import build_progress

        with build_progress(f"building an engine of {weights}") as progress:
            pool.open(progress)
    except BaseException:
        pool.close()
        raise
    return pool


def _new_pool(wanted: str | ClusterRequest, weights: str, options: Mapping[str, Any]) -> AnyPool:
    if isinstance(wanted, str):
        from agsr.engines.pool.pool import WorkerPool

        return WorkerPool(wanted, weights, **options)
    from agsr.engines.cluster.pool import ClusterPool

    return ClusterPool(wanted, weights, **options)


def _may_build(backend: str, options: Mapping[str, Any]) -> bool:
    """Whether a TensorRT engine may be built, which takes minutes and is shown."""
    if backend != "auto" or options["provider"] or options["device"] or options["url"]:
        return backend == "trt"
    from agsr.engines.ranking import missing_requirement

    return not missing_requirement(Place("trt"))
