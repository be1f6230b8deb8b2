"""Progress of a TensorRT build: nested phases, reported by any thread → one share of the whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any

Report = Callable[[str, float], bool]
"""Called with the phase and the completed share, 0 to 1; returning False cancels the build."""


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class Phases:
    """The phases in progress. Not thread-safe.

    >>> phases = Phases()
    >>> phases.start("build", None, 2)
    >>> phases.complete("build", 0)
    >>> phases.share()
    0.5
    """

    def __init__(self) -> None:
        self._phases: dict[str, _Phase] = {}

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Start a phase, inside another one or at the top."""
        self._phases[name] = _Phase(parent if parent in self._phases else None, max(steps, 1))

    def complete(self, name: str, step: int) -> None:
        """Mark a step of a phase, counted from 0, as completed."""
        if name in self._phases:
            self._phases[name].done = step + 1

    def finish(self, name: str) -> None:
        """End a phase."""
        self._phases.pop(name, None)

    def share(self, parent: str | None = None) -> float:
        """Return the completed share of all phases inside one, 0 to 1; None means of the whole."""
        inside = [name for name, phase in self._phases.items() if phase.parent == parent]
        return min(sum(map(self._share_of, inside)), 1.0)

    def _share_of(self, name: str) -> float:
        phase = self._phases[name]
        return min((phase.done + self.share(name)) / phase.steps, 1.0)


def progress_monitor(module: Any, report: Report) -> Any:
    """Create a progress monitor for a builder; ``cancelled`` is set when a report cancels it.

    TensorRT calls it from several threads; ``report`` is called by one at a time.
    """

    class Monitor(module.IProgressMonitor):  # type: ignore[misc]  # the base is chosen at run time
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            self.cancelled = False
            self._lock = Lock()
            self._phases = Phases()

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            with self._lock:
                self._phases.start(name, parent, steps)

        def step_complete(self, name: str, step: int) -> bool:
            with self._lock:
                self._phases.complete(name, step)
                self.cancelled = self.cancelled or not report(name, self._phases.share())
                return not self.cancelled

        def phase_finish(self, name: str) -> None:
            with self._lock:
                self._phases.finish(name)

    return Monitor()
