"""Compilation and launch of a training iteration's kernels: eager, compiled, from CUDA graphs.

`agsr.training.step.iteration` passes its work with a key for everything that is constant in it. A
`Launcher` runs it in one mode, or times all modes on the run's iterations and selects the fastest.
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

from agsr.errors import ConfigurationError
from agsr.model.base import Network
from agsr.system.text import first_line

LaunchMode = Literal["eager", "compiled", "graph", "compiled-graph"]
"""torch's operators or compiled regions of the network; launched one by one, or as one CUDA graph
per iteration."""

Kernels = Literal["eager", "compiled", "graph", "compiled-graph", "auto"]
"""A launch mode, or ``auto`` for the fastest one."""

WARM_UP = 2
"""Iterations of a kind that run before their graph is captured."""

TRIAL_SECONDS = 40.0
"""No further mode is tried after this time."""

Work = Callable[[], None]

_log = logging.getLogger(__name__)


class Recorder(Protocol):
    """Captures the work of a device."""

    def warm_up(self, work: Work) -> None:
        """Run the work where it will be captured."""

    def record(self, work: Work) -> Work:
        """Capture the work without running it; return a call that replays it in place."""


class CudaRecorder:
    """Captures CUDA graphs; all share a memory pool, since only one runs at a time."""

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def warm_up(self, work: Work) -> None:
        """See `Recorder.warm_up`."""
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            work()
        current.wait_stream(self._stream)

    def record(self, work: Work) -> Work:
        """See `Recorder.record`."""
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            work()
        return graph.replay


class _Graphs:
    """One graph per kind of iteration, captured after its warm-up."""

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
    """Times the modes on one phase's iterations, one after the other."""

    def __init__(self, modes: list[LaunchMode], device: torch.device, period: int) -> None:
        self._modes, self._device = list(modes), device
        self._settle, self._timed = (WARM_UP + 2) * period, max(2 * period, 8)
        self._seconds: dict[LaunchMode, float] = {}
        self._began = time.monotonic()
        self._count, self._start = 0, 0.0
        self.mode = self._modes.pop(0)

    def note(self) -> None:
        """Count a launched iteration."""
        if not self._modes and not self._count:
            return  # the mode is selected
        self._count += 1
        if self._count == self._settle:
            self._start = self._now()
        elif self._count == self._settle + self._timed:
            self._seconds[self.mode] = (self._now() - self._start) / self._timed
            self._next()

    def drop(self) -> None:
        """Drop the current mode, which failed, and try the next."""
        self._next()

    def _next(self) -> None:
        self._count = 0
        late = time.monotonic() - self._began > TRIAL_SECONDS
        if self._modes and not late:
            self.mode, self._count = self._modes.pop(0), 1
            return
        self._modes.clear()
        self.mode = min(self._seconds, key=self._seconds.__getitem__, default="eager")
        times = ", ".join(f"{mode} {1000 * s:.1f} ms" for mode, s in self._seconds.items())
        _log.warning("kernels: %s (per iteration: %s)", self.mode, times or "none timed")

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.monotonic()


class Launcher:
    """Runs a network's iterations.

    Args:
        kernels: A launch mode, or ``auto``.
        network: Network; its regions are compiled in place if a mode needs that.
        device: Device of the network.
        ranks: Number of ranks; several can neither capture graphs nor compare modes.
        recorder: Captures work; None means CUDA graphs.

    Raises:
        ConfigurationError: The mode is not possible on this device.
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
        self._modes = _modes(kernels, captures, ranks)
        self._device = device
        self._compiles = any(_is_compiled(mode) for mode in self._modes)
        if self._compiles:
            compile_regions(network)
        recorder = recorder or (CudaRecorder() if any(map(_is_graph, self._modes)) else None)
        self._graphs = {
            mode: _Graphs(recorder)
            for mode in self._modes
            if _is_graph(mode) and recorder is not None
        }
        self._trials: dict[Hashable, _Trial] = {}

    def run(self, phase: Hashable, kind: Hashable, work: Work, *, period: int) -> None:
        """Run the work of an iteration.

        Args:
            phase: Key of iterations that share one fastest mode.
            kind: Key that is equal if the work does the same to the same tensors.
            work: Launches kernels; never synchronizes, and reads no other changing values.
            period: Number of iterations after which the kinds of a phase repeat.
        """
        trial = self._trials.get(phase)
        if trial is None:
            trial = self._trials[phase] = _Trial(self._modes, self._device, period)
        try:
            self._launch(trial.mode, kind, work)
        except (
            Exception
        ) as error:  # of any type; if the mode isn't the cause, eager raises it again
            if len(self._modes) == 1 or trial.mode == "eager":
                raise
            _log.warning("kernels: %s does not work here: %s", trial.mode, first_line(error))
            trial.drop()
            self._launch("eager", kind, work)
            return
        trial.note()

    def _launch(self, mode: LaunchMode, kind: Hashable, work: Work) -> None:
        with self._stance(mode):
            if mode in self._graphs:
                self._graphs[mode].run(kind, work)
            else:
                work()

    def _stance(self, mode: LaunchMode) -> AbstractContextManager[object]:
        if not self._compiles or _is_compiled(mode):
            return nullcontext()
        eager: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
        return eager


def _modes(kernels: Kernels, captures: bool, ranks: int) -> list[LaunchMode]:
    if kernels == "auto" and ranks > 1:
        raise ConfigurationError(
            "--kernels auto is for one rank; choose --kernels eager or compiled"
        )
    if kernels == "auto":
        return [mode for mode in get_args(LaunchMode) if captures or not _is_graph(mode)]
    if _is_graph(kernels) and not captures:
        raise ConfigurationError(
            f"--kernels {kernels} needs CUDA graphs; choose a GPU with --device cuda, "
            "or --kernels eager or compiled"
        )
    if _is_graph(kernels) and ranks > 1:
        raise ConfigurationError(
            f"--kernels {kernels} is for one rank, found {ranks}; "
            "choose --kernels eager or compiled"
        )
    return [kernels]


def _is_graph(mode: Kernels) -> bool:
    return mode in ("graph", "compiled-graph")


def _is_compiled(mode: Kernels) -> bool:
    return mode in ("compiled", "compiled-graph")


def compile_regions(network: Network) -> None:
    """Compile the regions of `Network.regions`, once per input shape."""
    for name in network.regions:
        region = getattr(network, name)
        if isinstance(region, nn.Module):
            region.compile(dynamic=False)  # in place, so that parameter names are unchanged
        else:
            setattr(network, name, torch.compile(region, dynamic=False))
