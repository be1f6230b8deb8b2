"""``agsr models``: the networks at hand, and how each runs."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import click

from agsr.pretrained import MODELS_VARIABLE


@click.command(short_help="List the networks at hand, and how each runs.")
@click.option(
    "--models",
    "folder",
    type=click.Path(path_type=Path),
    help=f"Folder of .pth, .safetensors and .onnx files. [default: ${MODELS_VARIABLE}]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def models(folder: Path | None, as_json: bool) -> None:
    """List shipped weights and the files of a folder: scale, architecture, licence, backends.

    Files of the folder that $AGSR_MODELS names run by their name alone: agsr infer -w NAME.
    """
    from agsr.cli.output.models import show_models
    from agsr.engines.community.library import list_models

    named = os.environ.get(MODELS_VARIABLE)
    entries = list(list_models(folder or (Path(named) if named else None)))
    if as_json:
        click.echo(json.dumps([asdict(entry) for entry in entries], indent=2))
    else:
        show_models(entries)
