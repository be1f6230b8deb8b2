"""``agsr doctor`` and ``agsr models``: what runs here, timings, and the networks at hand."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import click

from agsr.pretrained import MODELS_VARIABLE
from agsr.system.signals import interruptible


@click.command(short_help="Show what runs here, and what would add the rest.")
@click.option(
    "--measure",
    is_flag=True,
    help="Time every backend that is here, half a minute or so, and let --backend auto follow it.",
)
@click.argument("model", required=False)
def doctor(measure: bool, model: str | None) -> None:
    """Show versions, what really runs here, and the commands that add what is missing.

    With MODEL, a file or a name in $AGSR_MODELS, show whether and how that runs instead.

    With --measure, the backends take turns on one size, each in its own process; the times are
    cached for this processor, these versions and these weights.
    """
    if model is not None:
        if measure:
            raise click.UsageError("--measure times shipped weights; remove MODEL")
        return _examine(model)
    if measure:
        return _measure()
    from agsr.bench.doctor import backends, caches, choice, machine
    from agsr.bench.installed import packages
    from agsr.cli.output.tables import build_progress, show_checks

    show_checks("machine", machine())
    show_checks("packages", packages())
    show_checks("cache", caches())
    show_checks("backends", backends(build_progress))
    show_checks("choice", choice(build_progress))
    return None


def _examine(model: str) -> None:
    """Show how a file runs; one that doesn't is a failure."""
    from pathlib import Path

    from agsr.cli.output.models import show_models
    from agsr.engines.community.library import describe
    from agsr.engines.weights_file import Kind, kind_of
    from agsr.pretrained import require_file, resolve_weights

    path = resolve_weights(model)
    require_file(path)
    entry = describe(Path(path))
    show_models([entry])
    if kind_of(path) is Kind.FOREIGN_ONNX and not entry.problem:
        _show_format(Path(path))
    if entry.halo:
        click.echo(f"halo: {entry.halo}")
    if entry.problem:
        raise SystemExit(1)


def _show_format(path: Path) -> None:
    """Show scale, input and output of another project's ONNX file, found by running it."""
    from agsr.engines.foreign import ForeignBackend

    with ForeignBackend(path) as backend:
        click.echo(f"scale: ×{backend.info.scale}")
        click.echo(f"precision: {backend.info.precision}")
        click.echo(f"input and output: {backend.io_spec.summary}")


def _measure() -> None:
    from agsr.bench.measure import measure, timings
    from agsr.cli.output.bench import bench_progress, show_measured
    from agsr.engines.timings import timings_file
    from agsr.system.atomic_file import check_writable

    check_writable(timings_file())
    with interruptible() as ending, bench_progress() as notify:
        result = measure(notify)
    show_measured(result)
    if not result.complete:
        raise SystemExit(ending.status)
    click.echo(f"saved to {timings(result).save()}: --backend auto uses it from now on")


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
