"""Parse ``cuda:0,cuda:1`` and ``cpu:4``: the options of `Upscaler` and the CPUs of each worker.

Data flow: the text and the options that all workers share → a `WorkerDevice` per worker, which
`agsr.engines.pool.pool` starts a process for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agsr.engines.places import AUTO, Place
from agsr.engines.request import Request
from agsr.errors import BackendRequestError
from agsr.system.cpu_shares import CpuShare, cpu_shares

MOST = 1024
"""More workers on the CPU are rejected as typos."""

_CPU = re.compile(r"cpu:([0-9]{1,9})")
_GPU = re.compile(r"(cuda|dml|migraphx|gpu):([0-9]{1,9})")
_EXPECTED = "expected GPUs like cuda:0,cuda:1, or cpu:N for N workers on the CPU"


@dataclass(frozen=True)
class WorkerDevice:
    """Device of one worker."""

    name: str
    """``cpu`` or ``cuda:1``."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of `Upscaler` that differ from those of the request."""
    share: CpuShare = CpuShare(1)  # noqa: RUF009  # frozen
    """Its part of the CPUs; on GPUs, decoding and encoding use it."""


def worker_devices(text: str, weights: str, running: Mapping[str, Any]) -> list[WorkerDevice]:
    """Parse the devices of a pool.

    >>> [device.options for device in worker_devices("cuda:0,cuda:3", "psnr", {})]
    [{'device': 'cuda:0'}, {'device': 'cuda:3'}]

    Args:
        text: ``cuda:0,cuda:1``, or ``cpu:N``.
        weights: As for `Upscaler`.
        running: Further arguments of `Upscaler`, for all workers.

    Raises:
        BackendRequestError: A device is unknown, named twice, or not one of the backend's.
    """
    for name in ("device", "threads", "url"):
        if running.get(name) is not None:
            raise BackendRequestError(f"devices and {name} contradict one another; remove {name}")
    if match := _CPU.fullmatch(text):
        return _on_cpu(int(match[1]), text, weights, running)
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if not _GPU.fullmatch(name):
            raise BackendRequestError(f"devices '{text}': no device '{name}'; {_EXPECTED}")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BackendRequestError(f"devices '{text}': {twice} is named twice; remove one")
    _place(text, weights, {**running, "device": names[0]})
    shares = cpu_shares(len(names))
    return [
        WorkerDevice(name, {"device": name}, share)
        for name, share in zip(names, shares, strict=True)
    ]


def _on_cpu(count: int, text: str, weights: str, running: Mapping[str, Any]) -> list[WorkerDevice]:
    if not 1 <= count <= MOST:
        raise BackendRequestError(
            f"devices '{text}': {count} workers; expected cpu:1 to cpu:{MOST}"
        )
    place = _place(text, weights, running)
    if place.kind != "cpu":
        raise BackendRequestError(
            f"devices '{text}': {place} does not run on the CPU; expected --backend ort, openvino "
            "or torch, or GPUs like cuda:0,cuda:1"
        )
    on_torch = place.runtime == "torch"
    return [
        WorkerDevice("cpu", {"device": "cpu"} if on_torch else {"threads": share.threads}, share)
        for share in cpu_shares(count)
    ]


def _place(text: str, weights: str, running: Mapping[str, Any]) -> Place:
    """Return the place that a worker's options mean, with `AUTO` on the CPU if it is chosen later.

    Raises:
        BackendRequestError: They contradict one another.
    """
    names = ("backend", "provider", "device")
    given = {name: running[name] for name in names if running.get(name) is not None}
    try:
        request = Request(weights=weights, **given)
        return Place(AUTO, "cpu") if request.runtime == AUTO else request.place
    except BackendRequestError as error:
        raise BackendRequestError(f"devices '{text}': {error}") from None
