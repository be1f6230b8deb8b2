"""The actor of a worker: opens the network once, then upscales the files that it is sent.

Data flow: `Task`s → files read, upscaled and written here → `Row`s of some hundred bytes. Pixels
never pass through Ray. Heavy modules are imported after the number of threads is set.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agsr.engines.feather import Seams
from agsr.engines.pool.messages import Logged, Task
from agsr.system.control_groups import usable_cpus
from agsr.system.cpu_shares import limit_threads
from agsr.system.memory import share_memory

if TYPE_CHECKING:
    from agsr.backend import BackendInfo
    from agsr.engines.batch.outcome import Outcome
    from agsr.engines.upscaler import Upscaler


@dataclass(frozen=True)
class Row:
    """Outcome of a job, without the job."""

    number: int
    error: str | None
    kind: type[Exception] | None
    size: tuple[int, int] | None
    alpha: bool
    seconds: float | None
    nbytes: int | None


@dataclass(frozen=True)
class Report:
    """Answer of an actor."""

    rows: tuple[Row, ...] = ()
    logged: tuple[Logged, ...] = ()
    shows_halo: bool = False
    seams: Seams = field(default_factory=Seams)
    """See `agsr.engines.picture_upscaler.PictureUpscaler.seams`."""


@dataclass(frozen=True)
class Ready:
    """The network is open, or can't be opened."""

    node: str
    pid: int
    info: BackendInfo | None
    error: Exception | None = None
    logged: tuple[Logged, ...] = ()


class _Collected(logging.Handler):
    """Holds log messages until the next answer."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[Logged] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(Logged(record.name, record.levelno, record.getMessage()))

    def collect(self) -> tuple[Logged, ...]:
        messages, self.messages = tuple(self.messages), []
        return messages


class ClusterWorker:
    """Upscales files in a process of its node.

    Args:
        threads: Threads that compute.
        log_level: Level of the logger ``agsr``.
    """

    def __init__(self, threads: int, log_level: int) -> None:
        limit_threads(threads)
        share_memory(max(1, usable_cpus() // threads))
        self._collected = _Collected()
        logging.getLogger().addHandler(self._collected)
        logging.getLogger("agsr").setLevel(log_level)
        self._upscaler: Upscaler | None = None

    def open(self, weights: str, content: bytes | None, options: Mapping[str, Any]) -> Ready:
        """Open the network.

        Args:
            weights: As for `Upscaler`.
            content: Of the weights file, for a node that lacks it.
            options: Further arguments of `Upscaler`.
        """
        from agsr.engines.pool.worker import picklable
        from agsr.engines.upscaler import Upscaler

        node, info, failure = _node(), None, None
        try:
            if content is not None and not Path(weights).exists():
                weights = str(_stored(Path(weights).name, content))
            self._upscaler = Upscaler(weights, **options)
            info = self._upscaler.info
        except Exception as error:
            failure = picklable(error)
        return Ready(node, os.getpid(), info, failure, self._collected.collect())

    def upscale(self, tasks: Sequence[Task]) -> Report:
        """Upscale files; the next one is read, and the last one written, meanwhile."""
        from agsr.engines.batch.runner import process
        from agsr.engines.pool.worker import upscale_one_video
        from agsr.system.quiet_stderr import quiet_decoders

        assert self._upscaler is not None
        images = [task for task in tasks if not task.job.is_video]
        outcomes: dict[int, Outcome] = {}
        with quiet_decoders():
            if images:
                options: Any = images[0].options
                done = process(self._upscaler, [task.job for task in images], options)
                for task, outcome in zip(images, done, strict=True):
                    outcomes[task.number] = outcome
            for task in tasks:
                if task.job.is_video:
                    outcomes[task.number] = upscale_one_video(self._upscaler, task)
        rows = tuple(_row(number, outcome) for number, outcome in outcomes.items())
        shows_halo, seams = self._upscaler.shows_halo, self._upscaler.seams
        return Report(rows, self._collected.collect(), shows_halo, seams)


def _row(number: int, outcome: Outcome) -> Row:
    return Row(
        *(number, outcome.error, outcome.kind, outcome.size, outcome.alpha),
        *(outcome.seconds, outcome.nbytes),
    )


def _node() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


def _stored(name: str, content: bytes) -> Path:
    """Write a weights file to the cache, once per content."""
    from agsr.system.atomic_file import complete_file
    from agsr.system.cache_dir import cache_folder

    digest = hashlib.sha256(content).hexdigest()[:16]
    path = cache_folder() / "cluster" / digest / name
    if not path.exists():
        with complete_file(path) as temporary:
            temporary.write_bytes(content)
    return path
