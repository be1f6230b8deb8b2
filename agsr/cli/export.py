"""``agsr export``: a checkpoint written as a verified ONNX file, and as a Triton model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agsr.cli.constraints import is_given
from agsr.cli.param_types import FilePath
from agsr.cli.params import check_ending, hints_option, weights_option
from agsr.contract import CHANNELS, MAX_STEPS, PRECISIONS, Precision
from agsr.errors import ExportRequestError
from agsr.pretrained import ONNX_SUFFIX, onnx_name
from agsr.system.text import printable

if TYPE_CHECKING:
    from agsr.engines.foreign.io_spec import IoSpec
    from agsr.export.exporter import ExportReport
    from agsr.export.triton import Signature

_TRITON_TYPES = {"float32": "FP32", "float16": "FP16", "uint8": "UINT8"}
"""Triton's names of element types."""


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
    "-o",
    "--output",
    type=FilePath,
    help="A name in .onnx. [default: NAME-STEPS[-PRECISION].onnx, without steps for another "
    "project's weights]",
)
@click.option("--triton", type=FilePath, help="Put the file into this Triton model repository too.")
@hints_option
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.pass_context
def export(
    context: click.Context,
    /,
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
    hints: str,
    as_json: bool,
) -> None:
    """Write the network as ONNX: unrolled, dynamic batch, height and width, verified.

    Other projects' weights (.pth, .safetensors) are exported for the sizes at which the file
    equals torch, which its metadata records. With another project's ONNX file, only --triton
    works: it writes a model folder.
    """
    from agsr.engines.weights_file import Kind, check_weights_options, kind_of

    check_weights_options(weights, steps, hints)
    kind = kind_of(weights)
    if kind is Kind.FOREIGN_ONNX:
        given = [p.opts[-1] for p in context.command.params if is_given(context, p.name or "")]
        _serve_foreign(Path(weights), triton, hints, given)
        return
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
    from agsr.export.triton import check_repository, write_repository

    calibrate = calibrate or (_calibration_photos() if precision == "int8" else None)
    options = {"precision": precision, "opset": opset, "tolerance": atol, "calibrate": calibrate}
    write = _community if kind is Kind.COMMUNITY else _own
    path, run = write(weights, steps, blend, other, precision, output, options)
    if triton is not None:
        check_repository(triton, path.stem)
    report = run()
    if as_json:
        click.echo(report.to_json())
    else:
        show_export(report)
    if triton is not None:
        served = write_repository(triton, path.stem, path)
        click.echo(f"{served}  for tritonserver --model-repository {triton}", err=as_json)


def _own(
    weights: str,
    steps: int | None,
    blend: float | None,
    other: str | None,
    precision: Precision,
    output: Path | None,
    options: dict[str, Any],
) -> tuple[Path, Callable[[], ExportReport]]:
    """Where this project's weights are exported to, and what does it."""
    from agsr.export import export_onnx
    from agsr.model.checkpoint import blend as interpolate
    from agsr.model.checkpoint import load_checkpoint
    from agsr.pretrained import find_checkpoint

    source = find_checkpoint(weights)
    checkpoint, name = load_checkpoint(source), source.stem
    if blend is not None:
        second = find_checkpoint(other or "gan")
        checkpoint = interpolate(checkpoint, load_checkpoint(second), blend)
        name = f"{name}-{second.stem}-{blend:g}"
    steps = checkpoint.network_type.default_steps if steps is None else steps
    path = output or Path(onnx_name(name, steps, precision))
    return path, partial(export_onnx, checkpoint, path, steps=steps, **options)


def _community(
    weights: str,
    steps: int | None,
    blend: float | None,
    _: str | None,
    precision: Precision,
    output: Path | None,
    options: dict[str, Any],
) -> tuple[Path, Callable[[], ExportReport]]:
    """Where another project's weights are exported to, and what does it."""
    if steps is not None or blend is not None:
        option = "--steps" if blend is None else "--blend"
        raise click.UsageError(f"{option} is for networks of agsr, and {weights} is none")
    from agsr.engines.community.loader import import_spandrel
    from agsr.export.community import export_community

    import_spandrel()
    source = Path(weights)
    path = output or Path(onnx_name(source.stem, None, precision))
    return path, partial(export_community, source, path, **options)


def _serve_foreign(path: Path, triton: Path | None, hints: str, given: Sequence[str]) -> None:
    """Write a Triton model of another project's ONNX file, as the file is.

    Raises:
        click.UsageError: There is no Triton repository to write to, or an option has no effect.
    """
    unused = [name for name in given if name not in ("--weights", "--triton", "--hints")]
    if triton is None or unused:
        reason = f"; remove {unused[0]}" if unused else ", and it needs --triton"
        raise click.UsageError(
            f"{path} is an ONNX file of another project, which can't be exported again; agsr only "
            f"writes a Triton folder of it{reason}"
        )
    from agsr.engines.foreign import ForeignBackend, Hints
    from agsr.engines.onnx_file.inspect import check_self_contained
    from agsr.export.triton import check_repository, write_repository

    known = Hints.parse(hints)
    check_repository(triton, path.stem)
    check_self_contained(path.read_bytes(), str(path))
    with ForeignBackend(path, known) as backend:
        spec, scale = backend.io_spec, backend.info.scale
    served = write_repository(triton, path.stem, path, signature=_signature(spec))
    click.echo(f"{served}  for tritonserver --model-repository {triton}")
    text = f"note: it takes {spec.summary}, and gives results of x{scale}"
    click.echo(printable(text), err=True)


def _signature(spec: IoSpec) -> Signature:
    """Describe a network's input and output to Triton."""
    from agsr.export.triton import Signature, Tensor

    height, width = spec.size or (-1, -1)
    large = tuple(side * spec.scale if side > 0 else side for side in (height, width))
    batch = () if spec.batch is None else (spec.batch,)
    depth = spec.channels if spec.channels in (1, CHANNELS) else -1  # alpha may be dropped

    def tensor(name: str, kind: str, layout: str, channels: int, *size: int) -> Tensor:
        axes = (channels, *size) if layout == "NCHW" else (*size, channels)
        return Tensor(name, (*batch, *axes), _TRITON_TYPES[kind])

    return Signature(
        tensor(spec.input, spec.input_type, spec.input_layout, spec.channels, height, width),
        tensor(spec.output, spec.output_type, spec.output_layout, depth, *large),
        fixed_batch=spec.batch is not None,
    )


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
