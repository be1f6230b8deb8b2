"""Training on several devices and machines: who this process is among those of ``torchrun``.

A batch is divided among the ranks, gradients are averaged by torch's DistributedDataParallel, and
rank 0 alone validates, reports and writes. Without ``torchrun`` there is one rank, and nothing
here costs anything.
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

from agsr.errors import ConfigurationError, TrainingError, first_line

PATIENCE = timedelta(hours=1)
"""How long ranks wait for another, for example while the first validates."""


@dataclass(frozen=True)
class World:
    """This process among its peers."""

    device: torch.device
    """Where this process computes."""
    rank: int = 0
    """Its number, from 0."""
    size: int = 1
    """Number of processes."""

    @property
    def leads(self) -> bool:
        """Whether this process validates, reports and writes."""
        return self.rank == 0

    def parallel(self, module: nn.Module) -> nn.Module:
        """The module as it is called in training: with several ranks, gradients are averaged."""
        if self.size == 1:
            return module
        devices = [self.device] if self.device.type == "cuda" else None
        # Every rank sees other patches, so the statistics of batch norm stay each rank's own.
        return DistributedDataParallel(module, device_ids=devices, forward_sync_buffers=False)

    def mean(self, value: Tensor) -> Tensor:
        """Mean of a tensor over the ranks."""
        if self.size > 1:
            value = value.detach().clone()
            dist.all_reduce(value)
            value /= self.size
        return value

    def agree(self, decision: bool) -> bool:
        """The decision of rank 0, for all."""
        if self.size == 1:
            return decision
        answer = torch.tensor(int(decision), device=self.device)
        dist.broadcast(answer, src=0)
        return bool(answer)

    def agree_on(self, number: float) -> float:
        """The number of rank 0, for all."""
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
    """Take this process's place among those that ``torchrun`` started, or stand alone.

    Args:
        device: torch device; with several ranks ``"cuda"`` becomes each rank's own GPU.

    Raises:
        ConfigurationError: torch knows no such device.
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
    # Not after an error: it would wait for ranks that wait for this one, and hide the message.
    dist.barrier()
    dist.destroy_process_group()


def end_rank(world: World, status: int = 0) -> None:
    """End the process of one of several ranks with a status, without taking Python down.

    The threads of gloo live as long as anything refers to the process group, as DDP does. Python
    ends a thread that wants to let go of a tensor while the interpreter is taken down, and C++
    answers that by aborting the process.
    """
    if world.size > 1:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)
