"""Messages between the pool and its workers, sent as pickled objects through a pipe.

`Setup`, `Open`, `Task`, `SegmentOrder`, `FINISH` and `STOP` go to a worker, all others come from
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from agsr.system.cpu_shares import CpuShare

if TYPE_CHECKING:
    from agsr.backend import BackendInfo
    from agsr.engines.batch.outcome import InferOptions, Outcome
    from agsr.engines.batch.plan import Job
    from agsr.engines.feather import Seams
    from agsr.engines.picture_upscaler import NetworkFacts
    from agsr.engines.video import VideoOptions
    from agsr.engines.video.segment_task import SegmentTask

FINISH: Final = "finish"
"""No job follows: the worker ends after those that it has."""
STOP: Final = "stop"
"""The worker drops the job that it computes, and ends after writing finished results."""


@dataclass(frozen=True)
class Setup:
    """What a process sets before it loads any library."""

    share: CpuShare
    """Its CPUs."""
    workers: int
    """Number of processes that share the memory."""
    log_level: int
    """Level of the logger ``agsr`` in the parent."""


@dataclass(frozen=True)
class Open:
    """Open the network."""

    weights: str
    options: Mapping[str, Any]
    """Further arguments of `Upscaler`."""


@dataclass(frozen=True)
class Task:
    """Upscale a file."""

    number: int
    """Position of the job in the batch."""
    job: Job
    options: InferOptions | VideoOptions
    """For images or for videos, as the job."""


@dataclass(frozen=True)
class SegmentOrder:
    """Make a segment of a video that several workers share."""

    number: int
    """Position of the segment among those of the video."""
    job: Job
    """The video."""
    task: SegmentTask


@dataclass(frozen=True)
class Opened:
    """The network is open."""

    facts: NetworkFacts

    @property
    def info(self) -> BackendInfo:
        """What runs."""
        return self.facts.info


@dataclass(frozen=True)
class Failed:
    """The network can't be opened; the worker ends."""

    error: Exception


@dataclass(frozen=True)
class Build:
    """Progress of building a TensorRT engine."""

    phase: str
    share: float


@dataclass(frozen=True)
class Wants:
    """The worker could read another file ahead, or waits for one."""

    idle: bool


@dataclass(frozen=True)
class Share:
    """Completed share of a job, 0 to 1."""

    number: int
    share: float


@dataclass(frozen=True)
class Compressed:
    """The video of a job is strongly compressed."""

    number: int


@dataclass(frozen=True)
class Done:
    """A job or segment has ended; its result is complete, or its outcome names the error."""

    number: int
    outcome: Outcome
    shows_halo: bool
    """See `agsr.engines.picture_upscaler.PictureUpscaler.shows_halo`."""
    seams: Seams
    """See `agsr.engines.picture_upscaler.PictureUpscaler.seams`."""


@dataclass(frozen=True)
class Logged:
    """A log message."""

    name: str
    level: int
    text: str
