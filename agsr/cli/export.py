"""``agsr export``: a checkpoint written as an ONNX file, and as a Triton model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agsr.assembly.requested import Blend
from agsr.cli.constraints import is_given
from agsr.cli.export_assembled import assembled_path, can_assemble, write_assembled
from agsr.cli.param_types import FilePath
from agsr.cli.params import BLEND_END, check_ending, hints_option, weights_option
from agsr.contract import MAX_STEPS, PRECISIONS, Precision
from agsr.errors import ExportRequestError
from agsr.pretrained import ONNX_SUFFIX, find_checkpoint, onnx_name
from agsr.system.text import printable

if TYPE_CHECKING:
    from agsr.export.exporter import ExportReport
    from agsr.export.triton import Runtime, ServedNetwork


@click.command(short_help="Write a network as ONNX, compared with torch if it is installed.")
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
@click.option(
    "--triton-backend",
    "triton_backend",
    type=click.Choice(["onnxruntime", "python"]),
    default="onnxruntime",
    show_default=True,
    help="What runs the file on the server; 'python' is ONNX Runtime in Triton's Python backend.",
)
@click.option(
    "--triton-tile",
    "triton_tile",
    type=click.IntRange(0, 4096),
    default=256,
    show_default=True,
    help="Side of the second model, whose tiles have one size and so share batches; 0 for none.",
)
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
    triton_backend: Runtime,
    triton_tile: int,
    hints: str,
    as_json: bool,
) -> None:
    """Write the network as ONNX: unrolled, dynamic batch, height and width.

    Where torch is installed, the file is compared with it before it appears.

    Other projects' weights (.pth, .safetensors) are exported for the sizes at which the file
    equals torch, which its metadata records. With another project's ONNX file, only --triton
    works: it writes a model folder.
    """
    from agsr.engines.weights_file import Kind, check_weights_options, kind_of

    check_weights_options(weights, steps, hints)
    kind = kind_of(weights)
    if kind is Kind.FOREIGN_ONNX:
        given = [p.opts[-1] for p in context.command.params if is_given(context, p.name or "")]
        folder = None if triton is None else _Repository(triton, triton_backend, triton_tile)
        _serve_foreign(Path(weights), folder, hints, given)
        return
    if triton is None and (name := _given(context, "triton_backend", "triton_tile")):
        raise click.UsageError(f"{name} is for --triton FOLDER, which is missing")
    if other is not None and blend is None:
        raise click.UsageError("--with needs --blend, the share of its weights")
    if calibrate is not None and precision != "int8":
        raise click.UsageError("--calibrate is for --precision int8")
    if output is not None:
        check_ending(output, ONNX_SUFFIX)
    repository = None if triton is None else _Repository(triton, triton_backend, triton_tile)
    named = weights if blend is None else f"{weights}:{other or BLEND_END}:{blend:g}"
    if kind is not Kind.COMMUNITY:
        Blend.parse(named)  # rejects a blend of a blend
    if kind in (Kind.ONNX, Kind.ENGINE):
        find_checkpoint(weights)  # rejects what can't be exported again, with torch or without
    if kind in (Kind.SHIPPED, Kind.CHECKPOINT) and can_assemble(opset, atol, calibrate):
        weights = named
        path = assembled_path(weights, steps, precision, output)
        if repository is not None:
            repository.check(path.stem)
        write_assembled(weights, steps, precision, path, as_json)
        if repository is not None:
            repository.write(path, to_stderr=as_json)
        return
    from agsr.system.optional_import import require

    for module in ("torch", "onnx", "onnxscript", "safetensors"):
        require(module, extra="train", purpose="Exporting")
    require("onnxruntime", extra="cpu", purpose="Verifying an export")
    from agsr.cli.output.tables import show_export

    calibrate = calibrate or (_calibration_photos() if precision == "int8" else None)
    options = {"precision": precision, "opset": opset, "tolerance": atol, "calibrate": calibrate}
    write = _community if kind is Kind.COMMUNITY else _own
    path, run = write(weights, steps, blend, other, precision, output, options)
    if repository is not None:
        repository.check(path.stem)
    report = run()
    if as_json:
        click.echo(report.to_json())
    else:
        show_export(report)
    if repository is not None:
        repository.write(path, to_stderr=as_json)


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

    source, mixed = find_checkpoint(weights), Blend.parse(weights)
    checkpoint, name = load_checkpoint(source), source.stem if mixed is None else mixed.name
    if blend is not None:
        second = find_checkpoint(other or BLEND_END)
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


@dataclass(frozen=True)
class _Repository:
    """The Triton repository that an export goes to, with the options for its models."""

    folder: Path
    backend: Runtime
    tile: int

    def check(self, name: str) -> None:
        """Reject models that exist, before anything is computed."""
        from agsr.export.triton import check_repository

        check_repository(self.folder, name, self.tile or None)

    def write(
        self, path: Path, network: ServedNetwork | None = None, *, to_stderr: bool = False
    ) -> None:
        """Write the models and print their folders; without a network, of an export."""
        from agsr.export.served_network import exported_network
        from agsr.export.triton import Serving, write_repository

        network = network or exported_network(path, self.tile)
        serving = Serving(runtime=self.backend)
        for written in write_repository(self.folder, path.stem, path, network, serving):
            text = f"{written}  for tritonserver --model-repository {self.folder}"
            click.echo(text, err=to_stderr)


def _serve_foreign(
    path: Path, repository: _Repository | None, hints: str, given: Sequence[str]
) -> None:
    """Write a Triton model of another project's ONNX file, as the file is.

    Raises:
        click.UsageError: There is no Triton repository to write to, or an option has no effect.
    """
    effective = ("--weights", "--triton", "--triton-backend", "--triton-tile", "--hints")
    unused = [name for name in given if name not in effective]
    if repository is None or unused:
        reason = f"; remove {unused[0]}" if unused else ", and it needs --triton"
        raise click.UsageError(
            f"{path} is an ONNX file of another project, which can't be exported again; agsr only "
            f"writes a Triton folder of it{reason}"
        )
    from agsr.engines.foreign import ForeignBackend, Hints
    from agsr.engines.onnx_file.inspect import check_self_contained
    from agsr.export.served_network import foreign_network

    known = Hints.parse(hints)
    repository.check(path.stem)
    check_self_contained(path.read_bytes(), str(path))
    with ForeignBackend(path, known) as backend:
        spec, info = backend.io_spec, backend.info
    repository.write(path, foreign_network(spec, info, repository.tile))
    text = f"note: it takes {spec.summary}, and gives results of x{info.scale}"
    click.echo(printable(text), err=True)


def _given(context: click.Context, *names: str) -> str:
    """Return the flag of the first of these options that the user gave; empty if none."""
    options = {option.name: option for option in context.command.params}
    return next((options[name].opts[-1] for name in names if is_given(context, name)), "")


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
