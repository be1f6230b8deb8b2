"""The command line. Commands parse and print; the work is done by the library they import.

stdout carries data (result paths, tables, JSON), stderr carries progress and messages. Exit status:
0 all done, 1 something failed, 2 the command was not understood. Imports are inside the commands,
so that ``agsr --help`` answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agsr._version import __version__
from agsr.cli.bench import bench
from agsr.cli.build import build, cache
from agsr.cli.commands import Commands
from agsr.cli.constraints import RUNNING, check_options
from agsr.cli.infer import infer
from agsr.cli.params import (
    FilePath,
    check_ending,
    lr_option,
    open_upscaler,
    running_options,
    weights_option,
)
from agsr.cli.train import train
from agsr.contract import MAX_STEPS, PRECISIONS, Precision
from agsr.errors import ExportRequestError
from agsr.pretrained import ONNX_SUFFIX
from agsr.system.signals import interruptible
from agsr.system.text import printable

if TYPE_CHECKING:
    from agsr.bench.data.sets import ImageSet, Skipped
    from agsr.bench.scoring import Distance
    from agsr.engines.upscaler import Upscaler


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="agsr")
def main() -> None:
    """Attentive-GAN super-resolution: upscale images by four, and everything around it."""


@click.command(short_help="Write a network as ONNX, verified against torch.")
@weights_option
@click.option(
    "-s",
    "--steps",
    type=click.IntRange(1, MAX_STEPS),
    help="Time steps to unroll. [default: 4, or 1 for a network without a loop]",
)
@click.option(
    "--blend",
    type=click.FloatRange(0, 1),
    help="Interpolate the weights: 0 gives --weights, 1 gives --with, like 0.5 what lies between.",
)
@click.option(
    "--with",
    "other",
    help="Weights to blend with: trained on from --weights. [default: gan]",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="fp32",
    show_default=True,
    help="Arithmetic inside the graph; lr and sr stay float32.",
)
@click.option(
    "--calibrate",
    type=FilePath,
    help="Folder of photographs, for int8. [default: $AGSR_DATA/val/Kodak24]",
)
@click.option("--opset", type=click.IntRange(18, 24), help="ONNX opset. [default: 20, 22 for bf16]")
@click.option(
    "--atol",
    type=click.FloatRange(0, min_open=True),
    help="Largest difference from torch, of the range. [default: 1e-4 for fp32, 4e-3 for fp16, "
    "0.05 for bf16, 0.4 for int8]",
)
@click.option(
    "-o", "--output", type=FilePath, help="A name in .onnx. [default: NAME-STEPS[-PRECISION].onnx]"
)
@click.option("--triton", type=FilePath, help="Put the file into this Triton model repository too.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def export(
    weights: str,
    steps: int | None,
    blend: float | None,
    other: str | None,
    precision: Precision,
    calibrate: Path | None,
    opset: int | None,
    atol: float | None,
    output: Path | None,
    triton: Path | None,
    as_json: bool,
) -> None:
    """Write the network as ONNX: unrolled, dynamic batch, height and width, verified."""
    if other is not None and blend is None:
        raise click.UsageError("--with needs --blend, the share of its weights")
    if calibrate is not None and precision != "int8":
        raise click.UsageError("--calibrate is for --precision int8")
    if output is not None:
        check_ending(output, ONNX_SUFFIX)
    from agsr.system.optional_import import require

    for module in ("torch", "onnx", "onnxscript", "safetensors"):
        require(module, extra="train", purpose="Exporting")
    require("onnxruntime", extra="cpu", purpose="Verifying an export")
    from agsr.cli.output.tables import show_export
    from agsr.export import export_onnx
    from agsr.export.triton import check_repository, write_repository
    from agsr.model.checkpoint import blend as interpolate
    from agsr.model.checkpoint import load_checkpoint
    from agsr.pretrained import find_checkpoint, onnx_name

    source = find_checkpoint(weights)
    checkpoint, name = load_checkpoint(source), source.stem
    if blend is not None:
        second = find_checkpoint(other or "gan")
        checkpoint = interpolate(checkpoint, load_checkpoint(second), blend)
        name = f"{name}-{second.stem}-{blend:g}"
    steps = checkpoint.network_type.default_steps if steps is None else steps
    path = output or Path(onnx_name(name, steps, precision))
    if triton is not None:
        check_repository(triton, path.stem)
    report = export_onnx(
        checkpoint,
        path,
        steps=steps,
        precision=precision,
        opset=opset,
        tolerance=atol,
        calibrate=calibrate or (_calibration_photos() if precision == "int8" else None),
    )
    if as_json:
        click.echo(report.to_json())
    else:
        show_export(report)
    if triton is not None:
        served = write_repository(triton, path.stem, path)
        click.echo(f"{served}  for tritonserver --model-repository {triton}", err=as_json)


@click.command("eval", short_help="Score a network on test sets: PSNR and SSIM.")
@click.option(
    "--set",
    "sets",
    multiple=True,
    default=["Set5"],
    show_default=True,
    help="Set5, Set14, BSD100, Urban100, Manga109, or a folder of HR images; repeatable.",
)
@click.option("--data", type=FilePath, help="Folder of the named sets. [default: $AGSR_DATA]")
@click.option("--fetch", is_flag=True, help="Fetch named sets that are not here, once.")
@lr_option
@running_options
@click.option(
    "--lpips",
    type=FilePath,
    help="Add LPIPS on AlexNet features, whose weights are in this .npz file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON, one per line.")
@click.pass_context
def evaluate(
    context: click.Context,
    /,
    sets: tuple[str, ...],
    data: Path | None,
    fetch: bool,
    lr: str,
    lpips: Path | None,
    as_json: bool,
    **running: Any,
) -> None:
    """Score the network: PSNR and SSIM on luma, per image and mean, beside Bicubic.

    Shipped weights are scored in fp32 unless --precision says otherwise, so that scores do not
    depend on the machine.
    """
    check_options(context, RUNNING)
    from agsr.bench.scoring import lpips_alex
    from agsr.cli.output.tables import open_sets
    from agsr.engines.open import check_request
    from agsr.pretrained import is_path

    if running["backend"] == "auto" and not is_path(running["weights"]):
        running["precision"] = running["precision"] or "fp32"
    check_request(**{name: running[name] for name in _REQUEST})
    distance = lpips_alex(lpips) if lpips else None
    image_sets = open_sets(sets, data, fetch=fetch, use_lr=lr == "given")
    with open_upscaler(**running) as upscaler:
        skipped = sum(_evaluate(upscaler, images, distance, as_json) for images in image_sets)
    if skipped:
        count = "1 image" if skipped == 1 else f"{skipped} images"
        raise click.ClickException(f"{count} can't be used; the means are over the others")


_REQUEST = ("backend", "weights", "steps", "provider", "device", "precision", "threads")
"""Options that are checked before sets are read or fetched."""


def _evaluate(
    upscaler: Upscaler, images: ImageSet, distance: Distance | None, as_json: bool
) -> int:
    """Score a set and print its report; how many of its images can't be used."""
    from agsr.bench.scoring import QualityReport, protocol_of
    from agsr.bench.scoring import evaluate as scores
    from agsr.cli.output.tables import show_quality, tracked

    for note in images.notes:
        click.echo(printable(f"{images.name}: {note}"), err=True)
    skipped: list[Skipped] = []

    def skip(image: Skipped) -> None:
        skipped.append(image)
        click.echo(printable(f"warning: {image.reason}; skipped"), err=True)

    found = scores(upscaler, images, distance, skip)
    rows = tuple(tracked(found, images.name, len(images.files)))
    if rows:
        report = QualityReport(
            set=images.name,
            backend=upscaler.info,
            rows=rows,
            protocol=protocol_of(images),
            skipped=tuple(skipped),
            notes=images.notes,
        )
        if as_json:
            click.echo(report.to_json())
        else:
            show_quality(report)
    return len(skipped)


@click.command(short_help="Show what runs here, and what would add the rest.")
@click.option(
    "--measure",
    is_flag=True,
    help="Time every backend that is here, half a minute or so, and let --backend auto follow it.",
)
def doctor(measure: bool) -> None:
    """Show versions, what really runs here, and the commands that add what is missing.

    With --measure, the backends take turns on one size, each in a process of its own; the times are
    kept in the cache folder, for this processor, these versions and these weights.
    """
    if measure:
        return _measure()
    from agsr.bench.doctor import backends, caches, choice, machine, packages
    from agsr.cli.output.tables import build_progress, show_checks

    show_checks("machine", machine())
    show_checks("packages", packages())
    show_checks("cache", caches())
    show_checks("backends", backends(build_progress))
    show_checks("choice", choice(build_progress))
    return None


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
    click.echo(f"kept in {timings(result).save()}: --backend auto follows it from now on")


for command in (infer, doctor, evaluate, bench, train, export, build, cache):
    main.add_command(command)


def _calibration_photos() -> Path:
    """Where int8 takes its photographs from if the user names none."""
    from agsr.bench.data.sets import DATA_VARIABLE, data_folder

    root = data_folder()
    folder = root / "val" / "Kodak24" if root else None
    if folder is None or not folder.is_dir():
        raise ExportRequestError(
            "int8 is calibrated on photographs like those it is for, twenty or more, without "
            "traces of compression: agsr export --precision int8 --calibrate FOLDER (there is no "
            f"val/Kodak24 under {DATA_VARIABLE}={root or 'unset'}). Shipped weights need no "
            "export: agsr infer --precision int8"
        )
    return folder
