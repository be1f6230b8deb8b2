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
from agsr.cli_bench import bench
from agsr.cli_build import build, cache
from agsr.cli_train import train
from agsr.contract import MAX_STEPS
from agsr.errors import AgsrError
from agsr.options import Commands, FilePath, running_options, weights_option

if TYPE_CHECKING:
    from agsr.engines.jobs import Job
    from agsr.engines.upscaler import Upscaler


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="agsr")
def main() -> None:
    """Attentive-GAN super-resolution: upscale images by four, and everything around it."""


@main.command()
@click.argument("inputs", nargs=-1, required=True, type=FilePath, metavar="IN...")
@click.option(
    "-o",
    "--output",
    type=FilePath,
    help="Result file for one input, else a folder. [default: beside each input]",
)
@running_options
@click.option("--suffix", default="_x4", show_default=True, help="Put behind each input's name.")
@click.option(
    "--ext",
    type=click.Choice(["png", "jpg", "webp", "tif", "bmp"]),
    default="png",
    show_default=True,
    help="Format of results that -o does not name.",
)
@click.option("--skip-existing", is_flag=True, help="Leave results alone that are already there.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
def infer(
    inputs: tuple[Path, ...],
    output: Path | None,
    suffix: str,
    ext: str,
    skip_existing: bool,
    quiet: bool,
    **running: Any,
) -> None:
    """Upscale image files by four.

    The path of every result goes to stdout. One bad file does not stop the others.

    \b
    agsr infer photo.jpg                   photo_x4.png beside it
    agsr infer *.png -o large/             many files into a folder
    agsr infer photo.png --steps 1         more than twice as fast, a little softer
    """
    from agsr.engines.jobs import plan

    jobs = plan(inputs, output, suffix=suffix, extension=f".{ext}")
    if skip_existing:
        jobs = [job for job in jobs if not job.target.exists()]
    with _open(**running) as upscaler:
        failed = sum(not _infer_one(upscaler, job, quiet) for job in jobs)
    if failed and len(jobs) > 1:
        click.echo(f"{failed} of {len(jobs)} files failed", err=True)
    if failed:
        raise SystemExit(1)


@main.command()
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
    type=click.Choice(["fp32", "fp16"]),
    default="fp32",
    show_default=True,
    help="Arithmetic inside the graph; lr and sr stay float32.",
)
@click.option(
    "--opset", type=click.IntRange(18, 24), default=20, show_default=True, help="ONNX opset."
)
@click.option(
    "--atol",
    type=click.FloatRange(0, min_open=True),
    help="Largest difference from torch, of the range. [default: 1e-4 for fp32, 4e-3 for fp16]",
)
@click.option("-o", "--output", type=FilePath, help="[default: NAME-STEPS[-fp16].onnx]")
@click.option("--triton", type=FilePath, help="Put the file into this Triton model repository too.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def export(
    weights: str,
    steps: int | None,
    blend: float | None,
    other: str | None,
    precision: Any,
    opset: int,
    atol: float | None,
    output: Path | None,
    triton: Path | None,
    as_json: bool,
) -> None:
    """Write the network as ONNX: unrolled, dynamic batch, height and width, verified."""
    if other is not None and blend is None:
        raise click.UsageError("--with needs --blend, the share of its weights")
    from agsr.optional import require

    for module in ("torch", "onnx", "onnxscript", "safetensors"):
        require(module, extra="train", purpose="Exporting")
    require("onnxruntime", extra="cpu", purpose="Verifying an export")
    from agsr.catalog import find_checkpoint, onnx_name
    from agsr.checkpoint import blend as interpolate
    from agsr.checkpoint import load_checkpoint
    from agsr.console import show_export
    from agsr.export import export_onnx
    from agsr.export.triton import write_repository

    source = find_checkpoint(weights)
    checkpoint, name = load_checkpoint(source), source.stem
    if blend is not None:
        second = find_checkpoint(other or "gan")
        checkpoint = interpolate(checkpoint, load_checkpoint(second), blend)
        name = f"{name}-{second.stem}-{blend:g}"
    steps = checkpoint.network_type.default_steps if steps is None else steps
    path = output or Path(onnx_name(name, steps, precision))
    report = export_onnx(
        checkpoint,
        path,
        steps=steps,
        precision=precision,
        opset=opset,
        tolerance=atol,
    )
    if as_json:
        click.echo(report.to_json())
    else:
        show_export(report)
    if triton is not None:
        served = write_repository(triton, path.stem, path)
        click.echo(f"{served}  for tritonserver --model-repository {triton}", err=as_json)


@main.command("eval")
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
@running_options
@click.option(
    "--lpips",
    type=FilePath,
    help="Add LPIPS on AlexNet features, whose weights are in this .npz file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON, one per line.")
def evaluate(
    sets: tuple[str, ...],
    data: Path | None,
    fetch: bool,
    lpips: Path | None,
    as_json: bool,
    **running: Any,
) -> None:
    """Score the network: PSNR and SSIM on luma, per image and mean, beside Bicubic."""
    from agsr.bench.quality import QualityReport, lpips_alex
    from agsr.bench.quality import evaluate as scores
    from agsr.console import open_sets, show_quality, tracked

    distance = lpips_alex(lpips) if lpips else None
    image_sets = open_sets(sets, data, fetch=fetch)
    with _open(**running) as upscaler:
        for images in image_sets:
            rows = tuple(
                tracked(scores(upscaler, images, distance), images.name, len(images.files))
            )
            report = QualityReport(set=images.name, backend=upscaler.info, rows=rows)
            if as_json:
                click.echo(report.to_json())
            else:
                show_quality(report)


@main.command()
def doctor() -> None:
    """Show versions, what really runs here, and the commands that add what is missing."""
    from agsr.bench.environment import backends, machine, packages
    from agsr.console import show_checks

    show_checks("machine", machine())
    show_checks("packages", packages())
    show_checks("backends", backends())


main.add_command(train)
main.add_command(bench)
main.add_command(build)
main.add_command(cache)


def _open(
    weights: str, steps: int | None, backend: str, tile: Any, halo: Any, **options: Any
) -> Upscaler:
    from agsr.engines.upscaler import Upscaler

    options |= {"backend": backend, "steps": steps, "tile": tile, "halo": halo}
    if backend != "trt":
        return Upscaler(weights, **options)
    from agsr.console import build_progress

    with build_progress(f"building an engine of {weights}") as progress:
        return Upscaler(weights, progress=progress, **options)


def _infer_one(upscaler: Upscaler, job: Job, quiet: bool) -> bool:
    """Upscale one file; prints its result or its error."""
    from agsr.console import file_progress
    from agsr.image import quiet_decoders, read_picture, write_picture

    try:
        with quiet_decoders():
            picture = read_picture(job.source)
        with file_progress(job.source.name, quiet) as progress:
            result = upscaler.picture(picture, progress)
        with quiet_decoders():
            write_picture(result, job.target)
    except AgsrError as error:
        click.echo(f"Error: {error}", err=True)
        return False
    except MemoryError:
        click.echo(f"Error: {job.source}: out of memory; use a smaller --tile", err=True)
        return False
    click.echo(job.target)
    return True
