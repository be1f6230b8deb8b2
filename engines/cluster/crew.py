"""The actors of a pool: started while there is work, replaced when they die, ended when idle.

`agsr.engines.cluster.pool` deals jobs to them and handles their answers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agsr.backend import BackendInfo
from agsr.engines.cluster.actor import ClusterWorker, Ready, Report
from agsr.engines.cluster.connection import connect
from agsr.engines.cluster.request import ClusterRequest, WorkerResources, worker_resources
from agsr.engines.pool.crew import comparable, settled
from agsr.engines.pool.messages import Logged, Task
from agsr.errors import BackendError
from agsr.pretrained import is_path
from agsr.system.text import counted, first_line

DEATHS = 3
"""Deaths per worker in a row, without a finished file in between, after which the pool gives up."""

PATIENCE = 20.0
"""Seconds until a warning that the first worker doesn't start."""

_log = logging.getLogger(__name__)


@dataclass
class Actor:
    """An actor, which may wait for its node."""

    number: int
    """From 1."""
    handle: Any
    opening: Any
    """Reference of the answer that its network is open."""
    info: BackendInfo | None = None
    """Set when it is."""
    node: str = ""
    batches: dict[Any, tuple[int, ...]] = field(default_factory=dict)
    """Jobs that it has, by the reference of its answer."""

    @property
    def held(self) -> set[int]:
        """Jobs that it has."""
        return {number for numbers in self.batches.values() for number in numbers}

    def deal(self, tasks: Sequence[Task]) -> None:
        """Send jobs."""
        self.batches[self.handle.upscale.remote(tasks)] = tuple(task.number for task in tasks)


class ClusterCrew:
    """Actors on a cluster; arguments and errors as for `agsr.engines.cluster.pool.ClusterPool`."""

    def __init__(self, cluster: ClusterRequest, weights: str, running: Mapping[str, Any]) -> None:
        self._weights = str(Path(weights).absolute()) if is_path(weights) else weights
        self._ray, self._is_own = connect(cluster.address)
        try:
            self._needs, fits = self._sized(cluster, running)
        except BaseException:
            self._leave()
            raise
        self._options = {**running, **self._needs.options}
        self._least, self._most = cluster.least or fits, cluster.most or fits
        self._content: Any = None
        self.actors: list[Actor] = []
        self._started = self._deaths = 0
        self._first: BackendInfo | None = None
        self.last_end = ""
        """How the last actor that was lost ended."""

    def _sized(
        self, cluster: ClusterRequest, running: Mapping[str, Any]
    ) -> tuple[WorkerResources, int]:
        """Return what a worker needs, and how many of them the nodes can hold."""
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        sizes = [int(node["Resources"].get("CPU", 0)) for node in nodes]
        total = self._ray.cluster_resources()
        smallest = min((size for size in sizes if size), default=1)
        needs = worker_resources(self._weights, running, smallest, total.get("GPU", 0))
        fits = _workers_that_fit(nodes, needs)
        if not fits and cluster.most is None:
            raise BackendError(
                f"ray: no node has {_resources(needs.cpus, needs.gpus)} for a worker; use a "
                "smaller -j, or --workers for a cluster that grows"
            )
        return needs, fits

    @property
    def places(self) -> int:
        """Number of actors that are open."""
        return sum(actor.info is not None for actor in self.actors)

    @property
    def gives_up(self) -> bool:
        """Whether actors die without finishing anything."""
        return self._deaths > DEATHS * max(1, min(self._least, 8))

    def open(self) -> BackendInfo:
        """Open the network in one actor.

        Raises:
            AgsrError: It can't be opened.
        """
        while self._first is None:
            if self.gives_up:
                raise BackendError(f"ray: the first worker can't be opened: {self.last_end}")
            actor = self.actors[0] if self.actors else self._start()
            self._wait_for(actor)
            ready = self._fetched(actor, actor.opening)
            if ready is None:
                self.bury(actor)
                continue
            if ready.error is not None:
                self._end(actor)
                raise ready.error
            self._admit(actor, ready)
        return self._first

    def _wait_for(self, actor: Actor) -> None:
        """Wait until an actor has opened the network or died; warn if it doesn't start."""
        started = actor.handle.__ray_ready__.remote()
        if not self._ray.wait([started], timeout=PATIENCE)[0]:
            free = self._ray.available_resources()
            _log.warning(
                "ray: worker %d has not started in %g s: it needs %s on one node, and the cluster "
                "has %s free; see ray status",
                *(actor.number, PATIENCE, _resources(self._needs.cpus, self._needs.gpus)),
                _resources(int(free.get("CPU", 0)), int(free.get("GPU", 0))),
            )
        self._ray.wait([actor.opening])

    def hire(self, waiting: int) -> None:
        """Start actors while jobs wait, end idle ones when none do."""
        opened = self.places
        pending = len(self.actors) - opened
        if not waiting:
            for actor in [a for a in self.actors if not a.batches]:
                self._end(actor)
            return
        wanted = min(self._most, waiting + sum(bool(a.batches) for a in self.actors))
        grow = max(self._least - len(self.actors), max(1, opened) - pending)
        for _ in range(min(grow, wanted - len(self.actors))):
            self._start()

    def answered(self, seconds: float) -> Iterator[tuple[Actor, Any]]:
        """Wait for answers; yield each with its actor."""
        owners = {a.opening: a for a in self.actors if a.info is None}
        owners |= {reference: a for a in self.actors for reference in a.batches}
        if not owners:
            return
        references = list(owners)
        ready, _ = self._ray.wait(references, num_returns=1, timeout=seconds)
        more, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
        for reference in dict.fromkeys([*ready, *more]):
            if owners[reference] in self.actors:
                yield owners[reference], reference

    def answer(self, actor: Actor, reference: Any) -> Report | Ready | None:
        """Return an answer; None if the actor is dead."""
        answer: Report | Ready | None = self._fetched(actor, reference)
        if isinstance(answer, Ready):
            self._admit(actor, answer)
        return answer

    def _fetched(self, actor: Actor, reference: Any) -> Any:
        """Return an answer; None if the actor is dead, with the reason in `last_end`."""
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            self.last_end = f"worker {actor.number} failed: {first_line(error.cause)}"
        except self._ray.exceptions.RayError as error:
            self.last_end = f"worker {actor.number} died{_reason(str(error))}"
        return None

    def finished(self, actor: Actor, report: Report) -> None:
        """Note that an actor works."""
        self._deaths = 0
        self._log(report.logged, f"worker {actor.number}")

    def bury(self, actor: Actor) -> tuple[str, bool]:
        """Remove a dead actor; return how it ended, and whether its whole node died."""
        alive = {node["NodeID"]: node["Alive"] for node in self._ray.nodes()}
        of_node = bool(actor.node) and not alive.get(actor.node, False)
        reason = self.last_end or f"worker {actor.number} died"
        if of_node:
            reason = f"worker {actor.number} died with its node {actor.node[:8]}"
        else:
            self._deaths += 1
        self.last_end = reason
        self._end(actor)
        return reason, of_node

    def dismiss_all(self) -> None:
        """End all actors."""
        for actor in list(self.actors):
            self._end(actor)

    def close(self) -> None:
        """End all actors, and leave the cluster unless the caller had joined it."""
        with suppress(Exception):
            self.dismiss_all()
        self._leave()

    def _leave(self) -> None:
        if self._is_own:
            self._ray.shutdown()

    def _start(self) -> Actor:
        self._started += 1
        worker = self._ray.remote(
            num_cpus=self._needs.cpus, num_gpus=self._needs.gpus, max_restarts=0
        )(ClusterWorker)
        level = logging.getLogger("agsr").getEffectiveLevel()
        handle = worker.remote(self._needs.cpus, level)
        opening = handle.open.remote(self._weights, self._weights_content(), self._options)
        actor = Actor(self._started, handle, opening)
        self.actors.append(actor)
        return actor

    def _weights_content(self) -> Any:
        """Return the content of a weights file in the object store, for nodes that lack it."""
        if self._content is None and is_path(self._weights) and Path(self._weights).is_file():
            self._content = self._ray.put(Path(self._weights).read_bytes())
        return self._content

    def _admit(self, actor: Actor, ready: Ready) -> None:
        """Use an actor only if it runs the network in the same way as the first."""
        info = ready.info
        if self._first is None and info is not None:
            self._first = info
            self._options = dict(settled(self._options, info))
            self._log(ready.logged, f"worker {actor.number}")
        elif info is None or self._first is None or comparable(info) != comparable(self._first):
            why = ready.error or (info and f"runs {info.summary}")
            self.last_end = f"worker {actor.number} on node {ready.node[:8]} can't be used: {why}"
            _log.warning("%s", self.last_end)
            self._deaths += 1
            self._end(actor)
            return
        actor.info, actor.node = info, ready.node
        where = f"node {ready.node[:8]}, process {ready.pid}"
        needs = f"{counted(self._needs.cpus, 'CPU')}, {counted(self._needs.gpus, 'GPU')}"
        _log.info("worker %d: %s, %s", actor.number, where, needs)

    def _end(self, actor: Actor) -> None:
        if actor in self.actors:
            self.actors.remove(actor)
        with suppress(Exception):  # it is dead
            self._ray.kill(actor.handle, no_restart=True)

    def _log(self, messages: Sequence[Logged], worker: str) -> None:
        for message in messages:
            logger = logging.getLogger(message.name)
            if logger.isEnabledFor(message.level):
                prefix = f"{worker}: " if message.level <= logging.INFO else ""
                logger.log(message.level, "%s%s", prefix, message.text)


def _resources(cpus: int, gpus: int) -> str:
    return f"{counted(cpus, 'CPU')} and {counted(gpus, 'GPU')}"


def _reason(text: str) -> str:
    """Return what an actor died of, as far as Ray knows it, after a colon.

    The last line is the exception where its creation failed.

    >>> _reason("The actor died because of an error in its creation task:\\nOSError: full")
    ': OSError: full'
    >>> _reason("The actor died unexpectedly before finishing this task.\\n\\tpid: 7")
    ''
    """
    first, *more = [line for line in text.splitlines() if line.strip()] or [""]
    if "creation task" in first:
        return f": {[first, *more][-1].strip()}"
    return "" if first.startswith("The actor") or not first else f": {first}"


def _workers_that_fit(nodes: Sequence[Mapping[str, Any]], needs: WorkerResources) -> int:
    total = 0
    for node in nodes:
        resources = node["Resources"]
        room = int(resources.get("CPU", 0)) // needs.cpus
        total += min(room, int(resources.get("GPU", 0))) if needs.gpus else room
    return total
