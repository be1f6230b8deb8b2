"""``agsr build`` and ``agsr cache``: TensorRT engines built ahead of time, and cached files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agsr.cli.param_types import FilePath, Size
from agsr.cli.params import check_ending
from agsr.errors import BuildRequestError
from agsr.pretrained import ENGINE_SUFFIX

if TYPE_CHECKING:
    from agsr.engines.tensorrt.options import Profile


_GPUS = {
    "sm75": r"rtx20[678]0.*|gtx16\d0.*|titanrtx|t4g?|quadrortx\d+|t1000|t[456]00",
    "sm80": r"a100.*|a30",
    "sm86": r"rtx2050.*|rtx30\d0.*|a10g?|a16|a40|a2|(rtx)?a([1-6]\d|[45])00(laptopgpu|\d+gb)?",
    "sm89": r"rtx40\d0.*|l4|l40s?|rtx\d+ada.*",
    "sm90": r"h100.*|h200.*|gh200",
    "sm100": r"b100|b200|gb200",
    "sm120": r"rtx50\d0.*|rtxpro\d+.*",
}
"""Names of GPUs, as patterns, by compute capability."""


class Target(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.4
    """A compute capability like ``sm89``, also as ``8.9`` or by the name of a GPU."""

    name = "gpu"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """``sm89``."""
        word = re.sub(r"nvidia|geforce|tesla|[\s_-]", "", str(value).lower())
        if re.fullmatch(r"(sm)?[0-9]{2,3}|[0-9]+\.[0-9]", word):
            return "sm" + word.removeprefix("sm").replace(".", "")
        found = next((name for name, gpus in _GPUS.items() if re.fullmatch(gpus, word)), None)
        if found is None:
            self.fail(f"{value!r} is no target: expected sm89 or a GPU like rtx4090", param, ctx)
        return found


@click.command(short_help="Build a TensorRT engine from an exported ONNX file.")
@click.argument("model", type=FilePath, metavar="MODEL.onnx")
@click.option("-o", "--output", type=FilePath, help="A name in .engine. [default: MODEL.engine]")
@click.option(
    "--min",
    "smallest",
    multiple=True,
    type=Size(),
    help="Smallest input, WIDTHxHEIGHT in pixels. [default: 16x16]",
)
@click.option(
    "--opt",
    "best",
    multiple=True,
    type=Size(),
    help="Input to be fastest for. [default: 320x180]",
)
@click.option(
    "--max",
    "largest",
    multiple=True,
    type=Size(),
    help="Largest input; --min --opt --max repeated together make several profiles. "
    "[default: 960x540]",
)
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Most images.")
@click.option("--workspace", type=click.IntRange(1), help="Scratch memory in MiB.")
@click.option("--level", type=click.IntRange(0, 5), help="0 builds fast, 5 makes a fast engine.")
@click.option(
    "--target",
    "targets",
    type=Target(),
    multiple=True,
    help="RTX GPUs to build for, like sm89 or rtx4090; repeatable. [default: the GPU here]",
)
@click.option(
    "--device", help="GPU of this machine to build on and for, like cuda:1. [default: cuda:0]"
)
@click.option("--version-compatible", is_flag=True, help="Later versions can run it (TensorRT).")
@click.option("--hardware-compatible", is_flag=True, help="Later GPUs can run it (TensorRT).")
@click.option("--timing-cache", type=FilePath, help="File of layer times to use (TensorRT).")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def build(
    model: Path,
    output: Path | None,
    smallest: tuple[tuple[int, int], ...],
    best: tuple[tuple[int, int], ...],
    largest: tuple[tuple[int, int], ...],
    batch: int,
    workspace: int | None,
    timing_cache: Path | None,
    device: str | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Build a TensorRT engine from an ONNX file made by 'agsr export'.

    The engine has the precision of the file. 'agsr infer --backend trt' builds and keeps its
    engines by itself; this command is for other sizes, other GPUs and other programs.

    \b
    agsr export --steps 4 --precision fp16
    agsr build psnr-4-fp16.onnx --target sm89
    agsr build psnr-4-fp16.onnx --max 1920x1080 --opt 1920x1080
    """
    if device is not None and flags["targets"]:
        raise click.UsageError(
            "--device and --target contradict one another: one GPU here, or kinds of GPUs elsewhere"
        )
    from agsr.cli.output.tables import build_progress, show_build
    from agsr.engines.places import place_from_options
    from agsr.engines.tensorrt.engine_file import build_engine_file
    from agsr.engines.tensorrt.options import BuildOptions
    from agsr.engines.weights_file import Kind, kind_of

    if kind_of(str(model)) is Kind.FOREIGN_ONNX:
        raise click.UsageError(
            f"{model} is an ONNX file of another project: 'agsr infer --backend trt -w {model}' "
            "builds its engine at first use, for the GPU here"
        )
    counts = {len(sizes) for sizes in (smallest, best, largest) if sizes}
    if len(counts) > 1:
        raise click.UsageError("--min, --opt and --max must be given equally often")
    profiles = tuple(
        _profile(batch, *(sizes[i] if sizes else None for sizes in (smallest, best, largest)))
        for i in range(max(counts, default=1))
    )
    options = BuildOptions(
        profiles=profiles,
        workspace=None if workspace is None else workspace << 20,
        **flags,
    )
    path = output or model.with_suffix(ENGINE_SUFFIX)
    check_ending(path, ENGINE_SUFFIX)
    index = None if device is None else place_from_options("trt", None, device).index
    with build_progress(model.name) as report:
        made = build_engine_file(model, path, options, report, timing_cache, index)
    if as_json:
        click.echo(json.dumps({"path": str(path), **made.to_dict()}, indent=2))
    else:
        show_build(str(path), made)


def _profile(batch: int, *sizes: tuple[int, int] | None) -> Profile:
    """Return the profile of a smallest, a best and a largest ``(width, height)``.

    Raises:
        BuildRequestError: They don't rise. If they do with height first, the message says so.
    """
    from agsr.engines.tensorrt.options import Profile

    def made(order: int) -> Profile:
        usual = Profile()
        chosen = (
            size[::order] if size else default[1:]
            for size, default in zip(
                sizes, (usual.smallest, usual.best, usual.largest), strict=True
            )
        )
        shapes = zip((1, 1, batch), chosen, strict=True)
        return Profile(*((count, height, width) for count, (height, width) in shapes))

    try:
        return made(-1)
    except BuildRequestError as error:
        try:
            made(1)
        except BuildRequestError:
            raise error from None
        given = ", ".join("x".join(map(str, size[::-1])) for size in sizes if size)
        raise BuildRequestError(f"{error}; sizes are WIDTHxHEIGHT: {given}?") from None


@click.group(short_help="List or clear what is cached for faster starts.")
def cache() -> None:
    """What is cached for faster starts: engines, compiled networks, ONNX files, measured times."""


@cache.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def list_cached(as_json: bool) -> None:
    """Show what is cached: its purpose, size and state."""
    from dataclasses import asdict

    from agsr.assembly.cached import assembled_entries, assembled_folder
    from agsr.cli.output.tables import show_assembled, show_compiled, show_engines
    from agsr.engines.runtimes.compiled_cache import CompiledCache
    from agsr.engines.tensorrt.engine_cache import EngineCache

    engines, compiled = EngineCache(), CompiledCache()
    built, networks = list(engines.entries()), list(compiled.entries())
    files = list(assembled_entries())
    if as_json:
        entries = [{"kind": "engine", **asdict(entry)} for entry in built]
        entries += [{"kind": "compiled", **asdict(entry)} for entry in networks]
        entries += [{"kind": "assembled", **asdict(entry)} for entry in files]
        click.echo(json.dumps(entries, indent=2))
    else:
        show_engines(str(engines.folder), built)
        show_compiled(str(compiled.folder), networks)
        show_assembled(str(assembled_folder()), files)


@cache.command()
def clear() -> None:
    """Clear the cache. All but measured times is rebuilt when needed."""
    from agsr.assembly.cached import assembled_folder
    from agsr.engines.runtimes.compiled_cache import CompiledCache
    from agsr.engines.tensorrt.engine_cache import EngineCache
    from agsr.engines.timings import timings_file
    from agsr.system import cache_files

    for folder in (EngineCache(), CompiledCache()):
        click.echo(f"{folder.folder}: {folder.clear() / 1e6:.1f} MB freed")
    files = assembled_folder()
    click.echo(f"{files}: {cache_files.clear(files) / 1e6:.1f} MB freed")
    timings_file().unlink(missing_ok=True)
