"""From the options of ``agsr infer`` to inputs, output size, format and jobs."""

from __future__ import annotations

import sys

import click

from agsr.image.ops.output_size import OutputSize
from agsr.store.address import Location
from agsr.video.formats import WRITABLE


def image_ending(ext: str | None) -> str | None:
    """Return the file extension of image results; None if each result has its input's."""
    if ext == "same":
        return None
    return f".{ext}" if ext and f".{ext}" not in WRITABLE else ".png"


def check_inputs(inputs: tuple[Location, ...]) -> tuple[Location, ...]:
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
