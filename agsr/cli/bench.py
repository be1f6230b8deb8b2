"""``agsr bench``: quality and speed of everything that runs here, and runs compared."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agsr.cli.commands import Commands
from agsr.cli.constraints import BENCH, check_options
from agsr.cli.params import CommaList, FilePath, SizeList, lr_option, threads_at_most
from agsr.contract import DEFAULT_STEPS, MAX_STEPS, PRECISIONS
from agsr.errors import UnknownWeightsError
from agsr.pretrained import DEFAULT_WEIGHTS, is_path, missing_file
from agsr.system.signals import interruptible
from agsr.system.text import printable

if TYPE_CHECKING:
    from agsr.bench.data.sets import ImageSet
    from agsr.bench.report.crops import CropCollector
    from agsr.bench.runner.plan import BenchPlan
    from agsr.bench.runner.results import BenchResult


@click.group(
    cls=Commands,
    invoke_without_command=True,
    short_help="Measure quality and speed of everything that runs here.",
)
@click.option(
    "--set",
    "sets",
    multiple=True,
    help="Score on Set5, Set14, BSD100, Urban100, Manga109, or a folder of HR images; repeatable.",
)
@click.option("--data", type=FilePath, help="Folder of the named sets. [default: $AGSR_DATA]")
@click.option("--fetch", is_flag=True, help="Fetch named sets that are not here, once.")
@lr_option
@click.option(
    "-w",
    "--weights",
    type=CommaList("NAME,…"),
    default=DEFAULT_WEIGHTS,
    show_default=True,
    help="Shipped weights, or .onnx and .safetensors files.",
)
@click.option(
    "--model",
    "models",
    type=click.Path(readable=False),
    multiple=True,
    help="Another project's x4 ONNX network, run by ONNX Runtime; repeatable.",
)
@click.option(
    "--hints",
    default="",
    metavar="NAME=VALUE,…",
    help="What of --model is not found by itself, like order=bgr,input_peak=255.",
)
@click.option(
    "-b",
    "--backends",
    type=CommaList("BACKEND[:WHERE],…"),
    help="Like ort:cuda or torch:cuda:1. What can't run here says why. "
    "[default: ort,openvino,torch,trt]",
)
@click.option(
    "-s",
    "--steps",
    type=CommaList("N,…", click.IntRange(1, MAX_STEPS)),
    help="Time steps of shipped weights. [default: 1,2,4]",
)
@click.option(
    "--precision",
    "precisions",
    type=CommaList("P,…", click.Choice(PRECISIONS)),
    help="Arithmetic. [default: fp32; trt: fp16]",
)
@click.option(
    "--size",
    "sizes",
    type=SizeList(),
    default="320x180",
    show_default=True,
    help="Input sizes to time; 'set' times the images of each --set.",
)
@click.option(
    "--batch",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Images a call, for the sizes of --size.",
)
@click.option(
    "--boundary",
    type=click.Choice(["host", "device", "both"]),
    default="host",
    show_default=True,
    help="Time with the copies to and from the device, or without.",
)
@click.option(
    "--rounds",
    type=click.IntRange(0, 1000),
    default=5,
    show_default=True,
    help="In each, all take their turn. 0 leaves speed out.",
)
@click.option(
    "--table1",
    "as_table1",
    is_flag=True,
    help="Print the paper's Table 1 beside what is measured: Set5, Set14, BSD100, no timing.",
)
@click.option(
    "-j",
    "--threads",
    type=click.IntRange(1),
    callback=threads_at_most,
    help="Threads of ort and openvino on the CPU. [default, and the most: one per core]",
)
@click.option(
    "--lpips", type=FilePath, help="alexnet.npz, for LPIPS. [default: $AGSR_DATA/lpips, if there]"
)
@click.option("--json", "json_path", type=FilePath, help="Write everything, raw samples too.")
@click.option("--markdown", type=FilePath, help="Write the tables.")
@click.option(
    "--html", type=FilePath, help="Write a report with plot, tables, crops to compare and maps."
)
@click.option("--plot", type=FilePath, help="Write quality against time: .svg, .png or .pdf.")
@click.pass_context
def bench(context: click.Context, /, **options: Any) -> None:
    """Measure quality and speed of every backend, step count and precision.

    All run in processes of their own and take turns. A row that fails says why, and the rest goes
    on; Ctrl-C keeps what is finished.

    \b
    agsr bench --set Set14                       the default: a minute or so
    agsr bench --size 640x360,1280x720 --rounds 10
    agsr bench --set Set5 -w psnr,gan --html report.html --json a.json
    agsr bench compare a.json b.json             exit status 1 if b is slower or worse
    """
    if context.invoked_subcommand is None:
        check_options(context, BENCH)
        _measure(**options)


_RESULT = click.Path(exists=True, dir_okay=False, path_type=Path)


@bench.command()
@click.argument("old", type=_RESULT)
@click.argument("new", type=_RESULT)
@click.option(
    "--max-regression",
    default="5%",
    show_default=True,
    help="Longer time that is still allowed.",
)
@click.option(
    "--max-psnr-loss",
    type=click.FloatRange(0),
    default=0.01,
    show_default=True,
    help="Loss of PSNR that is still allowed, dB.",
)
def compare(old: Path, new: Path, max_regression: str, max_psnr_loss: float) -> None:
    """Compare two results of --json; exit status 1 past a limit.

    Times are taken relative to a matrix product that both runs measured, so that a slower day of
    the machine is not taken for a slower program. Both need four --rounds at least. Rows that ran
    in another way (threads, hints, device, precision) are told and not compared.
    """
    from agsr.bench.report.comparison import compare_results
    from agsr.bench.runner.results import BenchResult
    from agsr.cli.output.bench import show_comparison

    limit = _share(max_regression)
    comparison = compare_results(BenchResult.load(old), BenchResult.load(new))
    if show_comparison(comparison, limit, max_psnr_loss):
        raise SystemExit(1)


def _share(text: str) -> float:
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise click.BadParameter(f"{text!r} is not a share like 5% or 0.05") from None
    return share


def _measure(
    json_path: Path | None,
    markdown: Path | None,
    html: Path | None,
    plot: Path | None,
    as_table1: bool,
    **options: Any,
) -> None:
    from agsr.bench.report.crops import CropCollector
    from agsr.bench.report.outputs import PLOT_SUFFIXES, Outputs
    from agsr.bench.runner.run import run
    from agsr.cli.output.bench import bench_progress, show_result, show_table1

    if as_table1:
        options = _for_table1(options)
    if plot:
        _check_plot(**options)
    outputs = Outputs(json=json_path, markdown=markdown, html=html, plot=plot)
    if plot and plot.suffix not in PLOT_SUFFIXES:
        raise click.UsageError(f"{plot}: expected a name in {', '.join(PLOT_SUFFIXES)}")
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
        count = "1 image" if result.skipped == 1 else f"{result.skipped} images"
        raise click.ClickException(f"{count} can't be used; the means are over the others")


def _for_table1(options: dict[str, Any]) -> dict[str, Any]:
    """The options of the paper's comparison, where the user names no others."""
    from agsr.bench.report.tables import TABLE1_SETS

    backends, steps = options["backends"] or ("auto",), options["steps"] or (DEFAULT_STEPS,)
    return {**options, "sets": TABLE1_SETS, "rounds": 0, "backends": backends, "steps": steps}


def _plan(
    sets: tuple[str, ...],
    data: Path | None,
    fetch: bool,
    lr: str,
    sizes: tuple[Any, ...],
    lpips: Path | None,
    boundary: str,
    weights: tuple[str, ...],
    models: tuple[str, ...],
    hints: str,
    backends: tuple[str, ...] | None,
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
    from agsr.engines.foreign.io_spec import Hints

    Hints.parse(hints)
    _check_files(weights, models)
    chosen = tuple(
        entries.expand(
            backends=backends or entries.DEFAULT_BACKENDS,
            weights=weights,
            steps=steps or entries.DEFAULT_STEPS,
            precisions=precisions or (None,),
            threads=threads,
            models=models,
            hints=hints,
        )
    )
    entries.check_all(chosen)
    found = tuple(open_sets(sets, data, fetch=fetch, use_lr=lr == "given"))
    _check_sets(found, sizes, rounds)
    perceptual = lpips or (default_lpips(data) if found and not plain else None)
    return BenchPlan(
        entries=chosen,
        sets=found,
        sizes=tuple(size for size in sizes if size != "set"),
        timed_sets=found if "set" in sizes else (),
        batch=batch,
        boundaries=("host", "device") if boundary == "both" else (boundary,),  # type: ignore[arg-type]
        rounds=rounds,
        parity=not plain,
        distance=lpips_alex(perceptual) if perceptual else None,
        observer=observer,
        command=shlex.join(["agsr", *sys.argv[1:]]),
    )


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
        if (is_path(name) or name in models) and not Path(name).is_file():
            raise UnknownWeightsError(missing_file(name))


def _check_ran(result: BenchResult) -> None:
    """Fail if no network ran, or one of those named nowhere."""
    rows = [row for row in result.rows if row.entry.is_network]
    ran = {row.entry.weights for row in rows if not row.error or row.quality or row.timings}
    if not ran:
        raise click.ClickException("nothing could run here")
    if unable := dict.fromkeys(r.entry.weights for r in rows if r.entry.weights not in ran):
        raise click.ClickException(printable(f"{', '.join(unable)}: could not run here"))
