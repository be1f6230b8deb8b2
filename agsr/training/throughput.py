"""How fast a device can multiply, and how much of that an iteration of training uses."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from agsr.training.distributed import World


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is faster than float32 there: tensor cores, AMX or AVX-512 BF16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(found.get("amx_bf16") or found.get("avx512_bf16"))


@cache
def matmul_rate(device: torch.device, bf16: bool) -> float:
    """Floating-point operations per second of a large matrix product, the best of three runs."""
    side = 8192 if device.type == "cuda" else 2048
    kind = torch.bfloat16 if bf16 else torch.float32
    a, b = (torch.randn(side, side, dtype=kind, device=device) for _ in range(2))
    product = torch.empty_like(a)
    seconds = [_time(lambda: torch.matmul(a, b, out=product), device) for _ in range(4)]
    return 2 * side**3 / min(seconds[1:])


def count_flops(work: Callable[[], object]) -> int:
    """Floating-point operations of the convolutions and products that a call does.

    A multiplication and the addition behind it count as two; the backward pass is counted too.
    """
    # Under a counter nothing can be compiled, and what was tried there never would be again.
    with torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


class Clock:
    """When a slice of a run is over and when a save is due.

    Args:
        minutes: Length of the slice; None means without end.
        save_every: Seconds between saves.
    """

    def __init__(self, minutes: float | None, save_every: float) -> None:
        self._end = None if minutes is None else time.monotonic() + 60 * minutes
        self._save_every, self._saved = save_every, time.monotonic()

    def over(self) -> bool:
        """Whether the slice is over."""
        return self._end is not None and time.monotonic() > self._end

    def save_is_due(self) -> bool:
        """Whether it is time to save; true once, then the time runs anew."""
        due = time.monotonic() - self._saved > self._save_every
        if due:
            self._saved = time.monotonic()
        return due


class Meter:
    """The speed between two reports.

    Args:
        world: The ranks that train together.
        bf16: Whether they compute in bfloat16.
    """

    def __init__(self, world: World, bf16: bool) -> None:
        self._limit = matmul_rate(world.device, bf16)
        self._flops: dict[object, int] = {}
        self.start()

    def start(self) -> None:
        """Forget what came before."""
        self._work = 0
        self._began = time.monotonic()

    def time(self, phase: object, work: Callable[[], object]) -> None:
        """Do an iteration; the first of each phase is done counting its operations."""
        if phase not in self._flops:
            self._flops[phase] = count_flops(work)
        else:
            work()
        self._work += self._flops[phase]

    def read(self) -> tuple[float, float]:
        """Seconds since the start, and the share of the device's matrix product."""
        seconds = time.monotonic() - self._began
        return seconds, self._work / seconds / self._limit


def _time(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
