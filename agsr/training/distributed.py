"""Distributed training under ``torchrun``, on several devices and machines.

A batch is divided among the ranks, torch's DistributedDataParallel averages gradients, and only
rank 0 validates, reports and writes. Without ``torchrun`` there is one rank and no overhead.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from agsr.errors import ConfigurationError, TrainingError
from agsr.system.text import first_line

PATIENCE = timedelta(hours=1)
"""Longest wait for another rank, for example while rank 0 validates."""


@dataclass(frozen=True)
class World:
    """This process's place among the ranks.

    >>> World(torch.device("cpu")).is_main
    True
    """

    device: torch.device
    """Device of this process."""
    rank: int = 0
    """Rank of this process, from 0."""
    size: int = 1
    """Number of ranks."""

    @property
    def is_main(self) -> bool:
        """True for rank 0, which validates, reports and writes."""
        return self.rank == 0

    def parallel(self, module: nn.Module) -> nn.Module:
        """Wrap a module for training, so that several ranks average their gradients."""
        if self.size == 1:
            return module
        devices = [self.device] if self.device.type == "cuda" else None
        # Ranks see different patches, so each has its own batch-norm statistics.
        return DistributedDataParallel(module, device_ids=devices, forward_sync_buffers=False)

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of a tensor over all ranks."""
        if self.size > 1:
            value = value.detach().clone()
            dist.all_reduce(value)
            value /= self.size
        return value

    def agree(self, decision: bool) -> bool:
        """Return rank 0's decision on every rank."""
        if self.size == 1:
            return decision
        answer = torch.tensor(int(decision), device=self.device)
        dist.broadcast(answer, src=0)
        return bool(answer)

    def agree_on(self, number: float) -> float:
        """Return rank 0's number on every rank."""
        if self.size == 1:
            return number
        answer = torch.tensor(number, dtype=torch.float64, device=self.device)
        dist.broadcast(answer, src=0)
        return float(answer)


def _usable(device: str) -> torch.device:
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise ConfigurationError(_unusable(device, error)) from None
    try:
        torch.zeros(1, device=place)
    except (RuntimeError, AssertionError) as error:
        raise TrainingError(_unusable(device, error)) from None
    return place


def _unusable(device: str, error: Exception) -> str:
    return f"torch can't use the device '{device}': {first_line(error)}"


@contextmanager
def join_world(device: str) -> Iterator[World]:
    """Join the process group of ``torchrun``, or yield a single-rank world without one.

    Args:
        device: torch device; with several ranks, ``"cuda"`` is each rank's local GPU.

    Raises:
        ConfigurationError: The name of the device is invalid.
        TrainingError: torch can't use the device.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size > 1 and device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    place = _usable(device)
    if size == 1:
        yield World(place)
        return
    if place.type == "cuda":
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=PATIENCE)
    yield World(place, dist.get_rank(), size)
    # Not after an error: this rank would wait for ranks that wait for it, and hide the message.
    dist.barrier()
    dist.destroy_process_group()


def end_rank(world: World, status: int = 0) -> None:
    """Exit the process of one of several ranks without finalizing the Python interpreter.

    gloo's threads live as long as anything refers to the process group, as DDP does. If such a
    thread releases a tensor while the interpreter shuts down, Python ends the thread, and C++ then
    aborts the process.
    """
    if world.size > 1:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)
