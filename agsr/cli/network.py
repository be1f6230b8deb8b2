"""The network of a command: its scale before it is loaded, and the upscaler when it is needed."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from agsr.cli.params import open_upscaler

if TYPE_CHECKING:
    from agsr.engines.batch.plan import Job
    from agsr.engines.upscaler import Upscaler


class Network:
    """The network of a run, opened as late as possible, and closed at the end of a block.

    Args:
        running: Options of `open_upscaler`.
        verbose: Print what runs to stderr.
    """

    def __init__(self, running: Mapping[str, Any], verbose: bool = False) -> None:
        self._running, self._verbose = running, verbose
        self._opened: Upscaler | None = None

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *_: object) -> None:
        if self._opened is not None:
            self._opened.close()

    def scale(self) -> int:
        """Return the network's scale, which results are named by.

        The network is opened only if its file doesn't declare the scale.
        """
        from agsr.engines.weights_file import declared_scale

        return declared_scale(self._running["weights"]) or self.upscaler().info.scale

    def upscaler(self, jobs: Sequence[Job] = ()) -> Upscaler:
        """Return the upscaler for a plan's jobs, finished ones included: a run that is resumed uses
        the network that the first one used."""
        if self._opened is None:
            self._opened = self._open(jobs)
        return self._opened

    def _open(self, jobs: Sequence[Job]) -> Upscaler:
        from agsr.engines.batch.headers import count_pixels

        if self._verbose and logging.lastResort is not None:
            logging.getLogger("agsr").setLevel(logging.INFO)
            logging.lastResort.setLevel(logging.INFO)
        started = time.perf_counter()
        work = count_pixels([job.source for job in jobs]) if jobs else None
        opened = open_upscaler(work=work, **self._running)
        if self._verbose:
            text = f"{opened.info.summary}, in {time.perf_counter() - started:.2f} s"
            click.echo(f"{text}: {opened.info.reason}", err=True)
        return opened
