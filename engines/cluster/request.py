"""What a run on a cluster asks for: its address, workers, and the resources of each.

Data flow: options of the command line → `ClusterRequest` → `agsr.engines.cluster.connection` and
`agsr.engines.cluster.pool`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agsr.engines.places import AUTO, Place
from agsr.engines.request import Request
from agsr.errors import BackendRequestError

MOST = 100_000
"""More workers are rejected as typos."""

THREADS = 4
"""CPUs of a worker if nothing else is asked for."""

_ADDRESS = re.compile(r"auto|local|(?:ray://)?[A-Za-z0-9_.-]+:[0-9]+|ray://\[[0-9a-f:]+\]:[0-9]+")
_WORKERS = re.compile(r"([0-9]{1,9})(?:\.\.([0-9]{1,9}))?")


@dataclass(frozen=True)
class ClusterRequest:
    """A Ray cluster, and how many workers to run on it.

    >>> ClusterRequest.parse("auto", "1..64")
    ClusterRequest(address='auto', least=1, most=64)

    Raises:
        BackendRequestError: The address or the number of workers has another form.
    """

    address: str = AUTO
    """``auto``, ``local``, ``HOST:PORT`` or ``ray://HOST:PORT``."""
    least: int | None = None
    """Workers to start at once; None for as many as fit."""
    most: int | None = None
    """Workers to start while there is work for them."""

    @classmethod
    def parse(cls, address: str, workers: str | None = None) -> ClusterRequest:
        """Parse the address of a cluster, and ``N`` or ``LEAST..MOST``."""
        if not _ADDRESS.fullmatch(address):
            raise BackendRequestError(
                f"ray: '{address}' is not the address of a cluster; expected HOST:PORT, "
                "ray://HOST:PORT, auto or local; inputs go before --ray"
            )
        if workers is None:
            return cls(address)
        match = _WORKERS.fullmatch(workers)
        least = int(match[1]) if match else 0
        most = int(match[2] or least) if match else 0
        if not 1 <= least <= most <= MOST:
            raise BackendRequestError(f"workers '{workers}': expected a number like 8, or 1..64")
        return cls(address, least, most)


@dataclass(frozen=True)
class WorkerResources:
    """Resources of one worker, as Ray reserves them."""

    cpus: int
    """CPUs, and threads on a CPU: of the network, if it runs there, and of decoders."""
    gpus: int
    options: Mapping[str, Any]
    """Arguments of `Upscaler` that follow."""


def worker_resources(
    weights: str, running: Mapping[str, Any], cpus: int, cluster_gpus: float
) -> WorkerResources:
    """Return what a worker needs.

    Args:
        weights: As for `Upscaler`.
        running: Further arguments of `Upscaler`.
        cpus: CPUs of the smallest node.
        cluster_gpus: GPUs of the cluster; with some, ``auto`` uses them.

    Raises:
        BackendRequestError: The options contradict one another, or name a device by its number.
    """
    if ":" in (device := running.get("device") or ""):
        raise BackendRequestError(
            f"ray and device {device} contradict one another: Ray assigns the GPUs; "
            "remove the number"
        )
    place = Request.chosen(weights, running).chosen_place
    count = running.get("threads") or max(1, min(THREADS, cpus))
    on_gpu = cluster_gpus > 0 if place.runtime == AUTO else _computes_elsewhere(place)
    if on_gpu or not place.takes_threads:
        return WorkerResources(count, int(on_gpu), {"threads": None})
    return WorkerResources(count, 0, {"threads": count})


def _computes_elsewhere(place: Place) -> bool:
    """Whether a place needs more of its node than CPUs; a remote server is no node."""
    return place.kind != "cpu" and not place.is_remote
