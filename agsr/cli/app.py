"""The group of all commands. Commands parse and print; the library they import does the work.

stdout carries data (result paths, tables, JSON), stderr progress and messages. Exit codes: 0 for
success, 1 if a file or a step failed, 2 if the request was wrong. Commands import what they need
when they run, so that ``agsr --help`` answers at once.
"""

from __future__ import annotations

import click

from agsr._version import __version__
from agsr.cli.bench import bench
from agsr.cli.build import build, cache
from agsr.cli.commands import Commands
from agsr.cli.doctor import doctor
from agsr.cli.evaluate import evaluate
from agsr.cli.export import export
from agsr.cli.infer import infer
from agsr.cli.train import train


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="agsr")
def main() -> None:
    """Attentive-GAN super-resolution: upscale images by four, and everything around it."""


for command in (infer, doctor, evaluate, bench, train, export, build, cache):
    main.add_command(command)
