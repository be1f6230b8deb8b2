"""From the options of ``agsr bench`` to its plan, run and outputs, with the checks around them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agsr.contract import DEFAULT_STEPS, SCALE
from agsr.pretrained import DEFAULT_WEIGHTS, is_path, require_file
from agsr.store.address import Location
from agsr.system.signals import interruptible
from agsr.system.text import counted, printable

if TYPE_CHECKING:
    from agsr.bench.data.sets import ImageSet
    from agsr.bench.report.crops import CropCollector
    from agsr.bench.runner.entries import Entry
    from agsr.bench.runner.plan import BenchPlan
    from agsr.bench.runner.results import BenchResult


def measure(
    json_path: Path | None,
    markdown: Path | None,
    html: Path | None,
    plot: Path | None,
    as_table1: bool,
    **options: Any,
) -> None:
    """Run a benchmark, show its tables and write the files asked for.

    Raises:
        click.ClickException: Nothing could run, or one of the networks could not.
    """
    from agsr.bench.report.crops import CropCollector
    from agsr.bench.report.outputs import Outputs
    from agsr.bench.runner.run import run
    from agsr.cli.output.bench import bench_progress, show_result, show_table1

    if as_table1:
        options = _for_table1(options)
    if plot:
        _check_plot(**options)
    outputs = Outputs(json=json_path, markdown=markdown, html=html, plot=plot)
    outputs.check()
    crops = CropCollector()
    plan = _plan(observer=crops if html else None, plain=as_table1, **options)
    with interruptible() as ending:
        with bench_progress() as notify:
            result = run(plan, notify)
        notes = outputs.write(result, crops)
        for note in notes:
            click.echo(f"note: {note}", err=True)
        if as_table1:
            show_table1(result)
        else:
            show_result(result)
        for path in outputs.paths:
            if path.exists() and not (notes and path == plot):
                click.echo(printable(f"written: {path}"), err=True)
    if not result.complete:
        raise SystemExit(ending.status)
    _check_ran(result)
    if result.skipped:
        count = counted(result.skipped, "image")
        raise click.ClickException(f"{count} can't be used; the means are over the others")


def _for_table1(options: dict[str, Any]) -> dict[str, Any]:
    """The options of the paper's comparison, where the user names no others."""
    from agsr.bench.report.tables import TABLE1_SETS

    backends, steps = options["backends"] or ("auto",), options["steps"] or (DEFAULT_STEPS,)
    return {**options, "sets": TABLE1_SETS, "rounds": 0, "backends": backends, "steps": steps}


def _plan(
    sets: tuple[str, ...],
    data: Location | None,
    fetch: bool,
    lr: str,
    sizes: tuple[Any, ...],
    lpips: Path | None,
    boundary: str,
    weights: tuple[str, ...],
    weights_given: bool,
    models: tuple[str, ...],
    hints: str,
    backends: tuple[str, ...] | None,
    url: str | None,
    steps: tuple[int, ...] | None,
    precisions: tuple[str, ...] | None,
    threads: int | None,
    batch: int,
    rounds: int,
    observer: CropCollector | None,
    plain: bool,
) -> BenchPlan:
    from agsr.bench.runner import entries
    from agsr.bench.runner.plan import BenchPlan
    from agsr.bench.scoring import default_lpips, lpips_alex
    from agsr.cli.output.tables import open_sets
    from agsr.engines.foreign.hints import Hints

    Hints.parse(hints)
    _check_files(weights, models)
    expanded = entries.with_scales(
        entries.expand(
            backends=_backends(backends, url),
            weights=weights,
            steps=steps or entries.DEFAULT_STEPS,
            precisions=precisions or (None,),
            threads=threads,
            models=models,
            hints=hints,
            url=url,
        )
    )
    if not weights_given:
        expanded = _without_default(expanded, models)
    chosen = tuple(entries.of_one_scale(expanded))
    scale = chosen[0].scale or SCALE
    entries.check_all(chosen)
    perceptual = lpips or (
        default_lpips(data if isinstance(data, Path) else None) if sets and not plain else None
    )
    distance = lpips_alex(perceptual) if perceptual else None
    found = tuple(open_sets(sets, data, fetch=fetch, use_lr=lr == "given", scale=scale))
    _check_sets(found, sizes, rounds)
    return BenchPlan(
        entries=chosen,
        sets=found,
        sizes=tuple(size for size in sizes if size != "set"),
        timed_sets=found if "set" in sizes else (),
        batch=batch,
        boundaries=("host", "device") if boundary == "both" else (boundary,),  # type: ignore[arg-type]
        rounds=rounds,
        scale=scale,
        parity=not plain,
        distance=distance,
        observer=observer,
        command=shlex.join(["agsr", *sys.argv[1:]]),
    )


def _backends(named: tuple[str, ...] | None, url: str | None) -> tuple[str, ...]:
    """Return the backends to measure.

    Raises:
        click.UsageError: There is a server's address and no backend that uses it, or the reverse.
    """
    from agsr.bench.runner.entries import DEFAULT_BACKENDS
    from agsr.engines.places import Place

    if named is None:
        return DEFAULT_BACKENDS if url is None else (*DEFAULT_BACKENDS, "triton")
    remote = any(Place.parse(name).is_remote for name in named)
    if remote and url is None:
        raise click.UsageError("--backends triton needs --url, like grpc://127.0.0.1:8001")
    if url is not None and not remote:
        raise click.UsageError("--url is for --backends triton, which is not among them")
    return named


def _without_default(chosen: list[Entry], models: tuple[str, ...]) -> list[Entry]:
    """Return the entries without the default weights if all ``models`` have another scale."""
    scales = {entry.scale for entry in chosen if entry.weights in models} - {None}
    if len(scales) != 1 or SCALE in scales:
        return chosen
    (scale,) = scales
    click.echo(
        f"note: no rows of {DEFAULT_WEIGHTS}, a x{SCALE} network: --model is x{scale}", err=True
    )
    return [entry for entry in chosen if entry.weights in models or not entry.is_network]


def _check_plot(sets: tuple[str, ...], rounds: int, **_: Any) -> None:
    if not sets or not rounds:
        raise click.UsageError("--plot needs scores and times: a --set, and --rounds of 1 or more")


def _check_sets(sets: tuple[ImageSet, ...], sizes: tuple[Any, ...], rounds: int) -> None:
    names = [found.name for found in sets]
    if len(set(names)) < len(names):
        raise click.UsageError(f"two sets of one name: {', '.join(names)}; rename a folder")
    if "set" in sizes and not sets:
        raise click.UsageError("--size set needs a --set, whose images are timed")
    if not rounds and not sets:
        raise click.UsageError("--rounds 0 leaves speed out, and there is no --set to score")


def _check_files(weights: Sequence[str], models: Sequence[str]) -> None:
    for name in (*weights, *models):
        if is_path(name) or name in models:
            require_file(name)


def _check_ran(result: BenchResult) -> None:
    """Fail if no network ran, or if a requested one ran on no backend."""
    rows = [row for row in result.rows if row.entry.is_network]
    ran = {row.entry.weights for row in rows if not row.error or row.quality or row.timings}
    if not ran:
        raise click.ClickException("nothing could run here")
    if unable := dict.fromkeys(r.entry.weights for r in rows if r.entry.weights not in ran):
        raise click.ClickException(printable(f"{', '.join(unable)}: could not run here"))
