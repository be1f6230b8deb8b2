"""Training throughput as model FLOPs utilization (MFU), and timers of a run.

MFU is the arithmetic of an iteration divided by what the device does in a large matrix product in
the same time; `TrainingProgress.matmul_share` reports it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from agsr.training.distributed import World


def has_fast_bf16(device: torch.device) -> bool:
    """Return True if the device has bfloat16 units: tensor cores, AMX or AVX-512 BF16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(found.get("amx_bf16") or found.get("avx512_bf16"))


@cache
def matmul_rate(device: torch.device, bf16: bool) -> float:
    """Return the FLOP/s of a large matrix product, the best of three runs."""
    side = 8192 if device.type == "cuda" else 2048
    kind = torch.bfloat16 if bf16 else torch.float32
    a, b = (torch.randn(side, side, dtype=kind, device=device) for _ in range(2))
    product = torch.empty_like(a)
    seconds = [_time(lambda: torch.matmul(a, b, out=product), device) for _ in range(4)]
    return 2 * side**3 / min(seconds[1:])


def count_flops(work: Callable[[], object]) -> int:
    """Count the floating-point operations of convolutions and matrix products in a call.

    A multiply-add counts as two; the backward pass is included.
    """
    # Compilation fails under a counter, and torch would never retry it.
    with torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


class SliceTimer:
    """Checks when a slice of a run is over and when a save is due.

    Args:
        minutes: Length of the slice; None means unlimited.
        save_every: Seconds between saves.
    """

    def __init__(self, minutes: float | None, save_every: float) -> None:
        self._end = None if minutes is None else time.monotonic() + 60 * minutes
        self._save_every, self._saved = save_every, time.monotonic()

    def over(self) -> bool:
        """Return True if the slice is over."""
        return self._end is not None and time.monotonic() > self._end

    def save_is_due(self) -> bool:
        """Return True if a save is due, and then restart the interval."""
        due = time.monotonic() - self._saved > self._save_every
        if due:
            self._saved = time.monotonic()
        return due


class ThroughputMeter:
    """Measures time and MFU between two reports.

    Args:
        world: The ranks that train together.
        bf16: Compare with a bfloat16 product instead of a float32 one.
    """

    def __init__(self, world: World, bf16: bool) -> None:
        self._peak = matmul_rate(world.device, bf16)
        self._flops: dict[object, int] = {}
        self.start()

    def start(self) -> None:
        """Start a new measurement."""
        self._work = 0
        self._began = time.monotonic()

    def time(self, phase: object, work: Callable[[], object]) -> None:
        """Run an iteration; the first of each phase also counts its operations."""
        if phase not in self._flops:
            self._flops[phase] = count_flops(work)
        else:
            work()
        self._work += self._flops[phase]

    def read(self) -> tuple[float, float]:
        """Return the seconds since the start, and the MFU."""
        seconds = time.monotonic() - self._began
        return seconds, self._work / seconds / self._peak


def _time(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
