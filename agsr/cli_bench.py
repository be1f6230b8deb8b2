"""``agsr bench``: quality and speed of everything that runs here, and runs compared."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agsr.catalog import DEFAULT_WEIGHTS
from agsr.contract import MAX_STEPS
from agsr.options import CommaList, Commands, FilePath, SizeList

if TYPE_CHECKING:
    from agsr.bench.datasets import ImageSet
    from agsr.bench.gallery import Gallery
    from agsr.bench.plan import BenchPlan
    from agsr.bench.results import BenchResult

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""

PLOT_SUFFIXES = (".svg", ".png", ".pdf")
"""Formats of ``--plot``."""


@click.group(cls=Commands, invoke_without_command=True)
@click.option(
    "--set",
    "sets",
    multiple=True,
    help="Score on Set5, Set14, BSD100, Kodak24, or a folder of HR images; repeatable.",
)
@click.option("--data", type=FilePath, help="Folder of the named sets. [default: $AGSR_DATA]")
@click.option(
    "-w",
    "--weights",
    type=CommaList("NAME,…"),
    default=DEFAULT_WEIGHTS,
    show_default=True,
    help="Shipped weights, or .onnx and .safetensors files.",
)
@click.option(
    "-b",
    "--backends",
    type=CommaList("BACKEND[:WHERE],…"),
    default="ort,ort:openvino,torch,trt",
    show_default=True,
    help="Like ort:cuda or torch:cuda:1. What can't run here says why.",
)
@click.option(
    "-s",
    "--steps",
    type=CommaList("N,…", click.IntRange(1, MAX_STEPS)),
    default="1,2,4",
    show_default=True,
    help="Time steps of shipped weights.",
)
@click.option(
    "--precision",
    "precisions",
    type=CommaList("P,…", click.Choice(["fp32", "bf16", "fp16"])),
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
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True)
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
@click.option("-j", "--threads", type=click.IntRange(1), help="[default: one per core]")
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
        _measure(**options)


@bench.command()
@click.argument("old", type=FilePath)
@click.argument("new", type=FilePath)
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
    the machine is not taken for a slower program. Both need four --rounds at least.
    """
    from agsr.bench.comparison import compare_results
    from agsr.bench.results import BenchResult
    from agsr.console_bench import show_comparison

    limit = _share(max_regression)
    comparison = compare_results(BenchResult.load(old), BenchResult.load(new))
    if show_comparison(comparison, limit, max_psnr_loss):
        raise SystemExit(1)


def _share(text: str) -> float:
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share < 10:
        raise click.BadParameter(f"{text!r} is not a share like 5% or 0.05") from None
    return share


def _measure(
    json_path: Path | None,
    markdown: Path | None,
    html: Path | None,
    plot: Path | None,
    **options: Any,
) -> None:
    from agsr.bench.gallery import Gallery
    from agsr.bench.run import run
    from agsr.bench.tables import to_markdown
    from agsr.console_bench import bench_progress, show_result

    _check_files(json_path, markdown, html, plot)
    gallery = Gallery()
    plan = _plan(observer=gallery if html else None, **options)
    with bench_progress() as notify:
        result = run(plan, notify)
    show_result(result)
    _write(json_path, result.to_json)
    _write(markdown, lambda: to_markdown(result))
    if html:
        from agsr.bench.html import to_html

        _write(html, lambda: to_html(result, gallery))
    if plot:
        from agsr.bench.plot import save_plot

        save_plot(result, plot)
    _leave(result)


def _check_files(*paths: Path | None) -> None:
    """Tell before the run what could not be written after it; the last one is the plot."""
    from agsr.atomic import check_writable
    from agsr.optional import require

    *_, html, plot = paths
    if plot and plot.suffix not in PLOT_SUFFIXES:
        raise click.UsageError(f"--plot {plot}: expected a name in {', '.join(PLOT_SUFFIXES)}")
    for path in filter(None, paths):
        check_writable(path)
    if html:
        require("jinja2", extra="bench", purpose="The HTML report")
    if html or plot:
        require("matplotlib", extra="bench", purpose="Plotting")


def _write(path: Path | None, text: Callable[[], str]) -> None:
    from agsr.atomic import complete_file

    if path is not None:
        with complete_file(path) as temporary:
            temporary.write_text(text(), encoding="utf-8")


def _plan(
    sets: tuple[str, ...],
    data: Path | None,
    sizes: tuple[Any, ...],
    lpips: Path | None,
    boundary: str,
    weights: tuple[str, ...],
    backends: tuple[str, ...],
    steps: tuple[int, ...],
    precisions: tuple[str, ...] | None,
    threads: int | None,
    batch: int,
    rounds: int,
    observer: Gallery | None,
) -> BenchPlan:
    from agsr.bench.contenders import expand
    from agsr.bench.datasets import find_set
    from agsr.bench.plan import BenchPlan
    from agsr.bench.quality import default_lpips, lpips_alex

    found = tuple(dict.fromkeys(find_set(name, data) for name in sets))
    _check_sets(found, sizes, rounds)
    perceptual = lpips or (default_lpips(data) if found else None)
    return BenchPlan(
        contenders=tuple(
            expand(
                backends=backends,
                weights=weights,
                steps=steps,
                precisions=precisions or (None,),
                threads=threads,
            )
        ),
        sets=found,
        sizes=tuple(size for size in sizes if size != "set"),
        timed_sets=found if "set" in sizes else (),
        batch=batch,
        boundaries=("host", "device") if boundary == "both" else (boundary,),  # type: ignore[arg-type]
        rounds=rounds,
        distance=lpips_alex(perceptual) if perceptual else None,
        observer=observer,
        command=shlex.join(["agsr", *sys.argv[1:]]),
    )


def _check_sets(sets: tuple[ImageSet, ...], sizes: tuple[Any, ...], rounds: int) -> None:
    names = [found.name for found in sets]
    if len(set(names)) < len(names):
        raise click.UsageError(f"two sets of one name: {', '.join(names)}; rename a folder")
    if "set" in sizes and not sets:
        raise click.UsageError("--size set needs a --set, whose images are timed")
    if not rounds and not sets:
        raise click.UsageError("--rounds 0 leaves speed out, and there is no --set to score")


def _leave(result: BenchResult) -> None:
    """Exit status: 130 after Ctrl-C, 1 if no network ran."""
    if not result.complete:
        raise SystemExit(INTERRUPTED)
    networks = [row for row in result.rows if row.contender.is_network]
    if all(row.error and not row.quality and not row.timings for row in networks):
        raise click.ClickException("nothing could run here")
