"""How much work each contender's network is, counted once per graph and size."""

from __future__ import annotations

from functools import cache

from agsr.bench.runner.entries import Contender
from agsr.bench.runner.flops import count_flops
from agsr.bench.runner.plan import Workload
from agsr.errors import AgsrError
from agsr.pretrained import find_onnx


class Work:
    """Counts operations; what can't be counted is told once in `notes`."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._count = cache(count_flops)

    def flops(self, contender: Contender, workload: Workload) -> float | None:
        """Floating-point operations of a workload; None where they can't be counted."""
        if not contender.is_network:
            return None
        try:
            path = find_onnx(contender.weights, contender.steps)
            return sum(self._count(path, lr.shape) for lr in workload.batches)
        except AgsrError as error:
            self._note(f"operations not counted: {error}")
            return None

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
