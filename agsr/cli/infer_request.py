"""From the options of ``agsr infer`` to inputs, output size, format and jobs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agsr.errors import ImageError, VideoError
from agsr.image.ops.output_size import OutputSize
from agsr.system.text import printable
from agsr.video.formats import WRITABLE

if TYPE_CHECKING:
    from agsr.engines.batch.plan import Job


def plan_jobs(plan: Callable[..., list[Job]], *arguments: Any, **options: Any) -> list[Job]:
    """Return the jobs of a run.

    Raises:
        click.UsageError: The names of results make no sense, or a format can't be written.
    """
    try:
        return plan(*arguments, **options)
    except (ImageError, VideoError) as error:
        raise click.UsageError(printable(str(error))) from None


def image_ending(ext: str | None) -> str | None:
    """Return the file extension of image results; None if each result has its input's."""
    if ext == "same":
        return None
    return f".{ext}" if ext and f".{ext}" not in WRITABLE else ".png"


def check_inputs(inputs: tuple[Path, ...]) -> tuple[Path, ...]:
    """Return the inputs.

    Raises:
        click.UsageError: There are none, or stdin is a terminal.
    """
    from agsr.engines.batch.plan import STREAM

    if not inputs:
        raise click.UsageError("Missing argument 'IN...': files, folders with -r, or '-' for stdin")
    if STREAM in inputs and sys.stdin is not None and sys.stdin.isatty():
        raise click.UsageError("'-' reads an image from stdin, which is the terminal; redirect it")
    return inputs


def output_size(
    scale: float | None, max_size: int | None, fit: tuple[int, int] | None, network: int
) -> OutputSize:
    """Return the size that --scale, --max-size or --to ask for, of a network of this scale.

    Raises:
        click.BadParameter: The scale is not a number, or larger than two passes of the network.
    """
    box = (max_size, max_size) if max_size else fit
    try:
        return OutputSize(scale=scale, box=box, network=network)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--scale") from None


def can_read_videos() -> bool:
    """Return True if PyAV is installed, so that videos in folders are inputs, too."""
    from importlib.util import find_spec

    return find_spec("av") is not None
