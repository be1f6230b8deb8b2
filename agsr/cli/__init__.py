"""The command line: the group of all commands, one module each.

Commands parse and print; the library that they import does the work. Only this package and
`agsr.serve` import engines, export and bench.

stdout carries data (result paths, tables, JSON), stderr progress and messages. Exit codes: 0 for
success, 1 if a file or a step failed, 2 if the request was wrong. Commands import what they need
when they run, so that ``agsr --help`` answers at once.
"""

from __future__ import annotations

import click

from agsr._version import __version__
from agsr.cli.commands import LazyCommands

__all__ = ["main"]


@click.group(
    cls=LazyCommands,
    modules={
        "infer": "agsr.cli.infer",
        "serve": "agsr.cli.serve",
        "doctor": "agsr.cli.doctor",
        "models": "agsr.cli.doctor",
        "eval": "agsr.cli.evaluate",
        "bench": "agsr.cli.bench",
        "train": "agsr.cli.train",
        "export": "agsr.cli.export",
        "build": "agsr.cli.build",
        "cache": "agsr.cli.build",
    },
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="agsr")
def main() -> None:
    """Attentive-GAN super-resolution: upscale images and videos, train, export, measure."""
