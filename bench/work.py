"""How much work each contender's network is, counted once per graph and size."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from agsr.bench.contenders import Contender
from agsr.bench.flops import Shape, count_flops
from agsr.bench.plan import Workload
from agsr.catalog import ONNX_SUFFIX, find_onnx, shipped_names
from agsr.errors import AgsrError


class Work:
    """Counts operations; what can't be counted is told once in `notes`."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._count = cache(self._try)

    def flops(self, contender: Contender, workload: Workload) -> float | None:
        """Floating-point operations of a workload; None where they can't be counted."""
        if not contender.is_network:
            return None
        path = _graph(contender)
        if path is None:
            self._note(f"{contender.weights}: no ONNX file to count its operations in")
            return None
        counts = [self._count(path, lr.shape) for lr in workload.batches]
        return sum(filter(None, counts)) if None not in counts else None

    def _try(self, path: Path, shape: Shape) -> float | None:
        try:
            return count_flops(path, shape)
        except AgsrError as error:
            self._note(str(error))
            return None

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def _graph(contender: Contender) -> Path | None:
    if contender.weights in shipped_names():
        return find_onnx(contender.weights, contender.steps)
    path = Path(contender.weights)
    return path if path.suffix == ONNX_SUFFIX else None
