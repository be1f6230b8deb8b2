"""Prometheus metrics of the server: requests, queue, pixels, seconds by phase, memory."""

from __future__ import annotations

import math
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client import generate_latest as _text

_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


class Metrics:
    """Metrics in a registry of their own, so that several servers may live in one process.

    >>> metrics = Metrics()
    >>> metrics.request("GET", "/healthz", 200)
    >>> b'agsr_requests_total{method="GET",route="/healthz",status="200"} 1.0' in metrics.text()
    True
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        add: Any = {"registry": self._registry}
        labels = ("method", "route", "status")
        self._requests = Counter("agsr_requests", "Answered requests.", labels, **add)
        self._jobs = Counter("agsr_jobs", "Finished jobs by outcome.", ("outcome",), **add)
        self._pixels = Counter("agsr_pixels", "Pixels of inputs and results.", ("of",), **add)
        self._phases = Histogram(
            "agsr_seconds",
            "Seconds of each phase: receive, wait, load, work, send.",
            ("phase",),
            buckets=_SECONDS,
            **add,
        )
        self._waiting = Gauge("agsr_queue_waiting", "Files that wait for a worker.", **add)
        self._running = Gauge("agsr_queue_running", "Files that are processed.", **add)
        self._disk = Gauge("agsr_disk_bytes", "Bytes of uploads and results.", **add)
        self._ready = Gauge("agsr_ready", "1 when the network has warmed up.", **add)
        ProcessCollector(**add)  # memory, CPU time and open files of the process, on Linux

    def request(self, method: str, route: str, status: int) -> None:
        """Count an answer."""
        self._requests.labels(method, route, str(status)).inc()

    def job(self, outcome: str) -> None:
        """Count a finished job."""
        self._jobs.labels(outcome).inc()

    def pixels(self, source: tuple[int, int] | None, result: tuple[int, int]) -> None:
        """Count the pixels of an input, if known, and of its result."""
        self._pixels.labels("input").inc(math.prod(source) if source else 0)
        self._pixels.labels("result").inc(math.prod(result))

    def seconds(self, phase: str, seconds: float) -> None:
        """Record how long a phase of a request took."""
        self._phases.labels(phase).observe(max(seconds, 0.0))

    def queue(self, waiting: int, running: int, disk: int) -> None:
        """Record how full the server is."""
        self._waiting.set(waiting)
        self._running.set(running)
        self._disk.set(disk)

    def ready(self) -> None:
        """Record that the network has warmed up."""
        self._ready.set(1)

    def text(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return _text(self._registry)
