"""``agsr bench``: quality and speed of everything that runs here, and runs compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agsr.cli.bench_run import measure
from agsr.cli.commands import Commands
from agsr.cli.constraints import BENCH, check_options, is_given
from agsr.cli.param_types import CommaList, FileLocation, FilePath, SizeList
from agsr.cli.params import hints_option, lr_option, resolved, threads_at_most
from agsr.contract import MAX_STEPS, PRECISIONS
from agsr.pretrained import DEFAULT_WEIGHTS


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
@click.option("--data", type=FileLocation, help="Folder of the named sets. [default: $AGSR_DATA]")
@click.option("--fetch", is_flag=True, help="Fetch named sets that are not here, once.")
@lr_option
@click.option(
    "-w",
    "--weights",
    type=CommaList("NAME,…"),
    default=DEFAULT_WEIGHTS,
    show_default=True,
    callback=resolved,
    help="Shipped weights, or .onnx, .safetensors and .pth files; not of another scale than "
    "--model.",
)
@click.option(
    "--model",
    "models",
    type=click.Path(readable=False),
    multiple=True,
    help="Another project's ONNX network, run by ONNX Runtime and OpenVINO; repeatable. All "
    "networks of a run have one scale.",
)
@hints_option
@click.option(
    "-b",
    "--backends",
    type=CommaList("BACKEND[:WHERE],…"),
    help="Like ort:cuda or torch:cuda:1. What can't run here says why. "
    "[default: ort,openvino,torch,trt]",
)
@click.option(
    "--url",
    metavar="URL",
    help="Triton server, like grpc://host:8001, of the backend triton, which is then measured too.",
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
        measure(weights_given=is_given(context, "weights"), **options)


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
    in another way (threads, hints, device, precision) are reported and not compared.
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
