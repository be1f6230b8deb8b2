"""How the kernels of a training iteration are made and launched: eager, compiled, from CUDA graphs.

`agsr.training.step.iteration` hands over its work with a name for everything that is constant in
it; a `Launcher` runs it one way, or tries all ways on a run's own iterations and keeps the fastest.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Protocol, get_args

import torch
from torch import nn

from agsr.errors import ConfigurationError, first_line
from agsr.model.base import Network

Way = Literal["eager", "compiled", "graph", "compiled-graph"]
"""Kernels of torch's operators, or fused ones of regions of the network; launched one by one, or
all of an iteration from a CUDA graph."""

Kernels = Literal["eager", "compiled", "graph", "compiled-graph", "auto"]
"""A way, or the fastest one."""

WARM_UP = 2
"""Iterations of a kind that run before their graph is captured."""

TRIAL_SECONDS = 40.0
"""No other way is tried after so long."""

Work = Callable[[], None]

_log = logging.getLogger(__name__)


class Recorder(Protocol):
    """Captures work that a device does."""

    def warm_up(self, work: Work) -> None:
        """Do the work where it will be captured."""

    def record(self, work: Work) -> Work:
        """Capture the work without doing it; what comes back does it, with the same tensors."""


class CudaRecorder:
    """Captures CUDA graphs; all share a pool of memory, since one at a time runs."""

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def warm_up(self, work: Work) -> None:
        """See `Recorder.warm_up`."""
        present = torch.cuda.current_stream()
        self._stream.wait_stream(present)
        with torch.cuda.stream(self._stream):
            work()
        present.wait_stream(self._stream)

    def record(self, work: Work) -> Work:
        """See `Recorder.record`."""
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            work()
        return graph.replay


class _Graphs:
    """A graph for each kind of iteration, captured after its warm-up."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._seen: Counter[Hashable] = Counter()
        self._replays: dict[Hashable, Work] = {}

    def run(self, kind: Hashable, work: Work) -> None:
        if kind not in self._replays:
            self._seen[kind] += 1
            if self._seen[kind] <= WARM_UP:
                self._recorder.warm_up(work)
                return
            self._replays[kind] = self._recorder.record(work)
        self._replays[kind]()


class _Trial:
    """Times the ways on one phase's iterations, one way after another."""

    def __init__(self, ways: list[Way], device: torch.device, period: int) -> None:
        self._ways, self._device = list(ways), device
        self._settle, self._timed = (WARM_UP + 2) * period, max(2 * period, 8)
        self._seconds: dict[Way, float] = {}
        self._began = time.monotonic()
        self._count, self._start = 0, 0.0
        self.way = self._ways.pop(0)

    def note(self) -> None:
        """An iteration was launched."""
        if not self._ways and not self._count:
            return  # decided
        self._count += 1
        if self._count == self._settle:
            self._start = self._now()
        elif self._count == self._settle + self._timed:
            self._seconds[self.way] = (self._now() - self._start) / self._timed
            self._next()

    def drop(self) -> None:
        """The way in use doesn't work: go on with another."""
        self._next()

    def _next(self) -> None:
        self._count = 0
        late = time.monotonic() - self._began > TRIAL_SECONDS
        if self._ways and not late:
            self.way, self._count = self._ways.pop(0), 1
            return
        self._ways.clear()
        self.way = min(self._seconds, key=self._seconds.__getitem__, default="eager")
        told = ", ".join(f"{way} {1000 * s:.1f} ms" for way, s in self._seconds.items())
        _log.warning("kernels: %s (per iteration: %s)", self.way, told or "none timed")

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.monotonic()


class Launcher:
    """Runs a network's iterations.

    Args:
        kernels: One way, or ``auto``.
        network: Its regions are compiled, in place, if a way needs that.
        device: Where it is.
        ranks: Processes that train together; several can neither capture nor compare.
        recorder: What captures; None means CUDA graphs.

    Raises:
        ConfigurationError: The way is not possible there.
    """

    def __init__(
        self,
        kernels: Kernels,
        network: Network,
        device: torch.device,
        *,
        ranks: int = 1,
        recorder: Recorder | None = None,
    ) -> None:
        captures = recorder is not None or device.type == "cuda"
        self._ways = _ways(kernels, captures, ranks)
        self._device = device
        self._compiles = any(_is_compiled(way) for way in self._ways)
        if self._compiles:
            compile_regions(network)
        recorder = recorder or (CudaRecorder() if any(map(_is_graph, self._ways)) else None)
        self._graphs = {
            way: _Graphs(recorder) for way in self._ways if _is_graph(way) and recorder is not None
        }
        self._trials: dict[Hashable, _Trial] = {}

    def run(self, phase: Hashable, kind: Hashable, work: Work, *, period: int) -> None:
        """Do an iteration's work.

        Args:
            phase: What has one fastest way.
            kind: What is the same whenever the work does the same to the same tensors.
            work: Launches kernels; waits for nothing, reads nothing else that changes.
            period: Iterations after which the kinds of a phase repeat.
        """
        trial = self._trials.get(phase)
        if trial is None:
            trial = self._trials[phase] = _Trial(self._ways, self._device, period)
        try:
            self._launch(trial.way, kind, work)
        except Exception as error:  # of whatever kind; if the way isn't at fault, it comes again
            if len(self._ways) == 1 or trial.way == "eager":
                raise
            _log.warning("kernels: no %s here: %s", trial.way, first_line(error))
            trial.drop()
            self._launch("eager", kind, work)
            return
        trial.note()

    def _launch(self, way: Way, kind: Hashable, work: Work) -> None:
        with self._stance(way):
            if way in self._graphs:
                self._graphs[way].run(kind, work)
            else:
                work()

    def _stance(self, way: Way) -> AbstractContextManager[object]:
        if not self._compiles or _is_compiled(way):
            return nullcontext()
        eager: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
        return eager


def _ways(kernels: Kernels, captures: bool, ranks: int) -> list[Way]:
    if kernels == "auto" and ranks > 1:
        raise ConfigurationError(
            "several ranks can't compare kernels; choose --kernels eager or compiled"
        )
    if kernels == "auto":
        return [way for way in get_args(Way) if captures or not _is_graph(way)]
    if _is_graph(kernels) and not captures:
        raise ConfigurationError(
            f"--kernels {kernels} needs CUDA graphs: choose a GPU with --device cuda, "
            "or --kernels eager or compiled"
        )
    if _is_graph(kernels) and ranks > 1:
        raise ConfigurationError(
            f"--kernels {kernels} is for one rank, found {ranks}; "
            "choose --kernels eager or compiled"
        )
    return [kernels]


def _is_graph(way: Kernels) -> bool:
    return way in ("graph", "compiled-graph")


def _is_compiled(way: Kernels) -> bool:
    return way in ("compiled", "compiled-graph")


def compile_regions(network: Network) -> None:
    """Compile what `Network.regions` names, for each shape it is used with."""
    for name in network.regions:
        region = getattr(network, name)
        if isinstance(region, nn.Module):
            region.compile(dynamic=False)  # in place: the names of its parameters stay
        else:
            setattr(network, name, torch.compile(region, dynamic=False))
