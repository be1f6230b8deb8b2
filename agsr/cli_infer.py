"""``agsr infer``: image files in, upscaled files out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agsr.options import FilePath, Sectioned, open_upscaler, running_options

if TYPE_CHECKING:
    from agsr.engines.jobs import Job
    from agsr.engines.pipeline import InferOptions
    from agsr.engines.upscaler import Upscaler
    from agsr.sizing import Sizing

LARGEST_SIDE = 1_000_000
"""Larger results are taken for a typing mistake, pixels."""

SECTIONS = {
    "Results": ("output", "ext", "quality", "suffix", "strip"),
    "Size": ("scale", "max_size", "fit"),
    "Many files": ("recursive", "skip_existing", "dry_run", "max_pixels", "quiet"),
}
"""Options as the help groups them; those of the network follow."""


class Box(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.4
    """``WIDTHxHEIGHT`` in pixels."""

    name = "wxh"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """``(width, height)``."""
        if isinstance(value, tuple):
            return value
        sides = str(value).lower().split("x")
        if len(sides) != 2 or not all(side.isdecimal() and int(side) for side in sides):
            self.fail(f"{value!r} is not WIDTHxHEIGHT, like 3840x2160", param, ctx)
        return int(sides[0]), int(sides[1])


@click.command(cls=Sectioned, sections=SECTIONS, rest="Network")
@click.argument("inputs", nargs=-1, required=True, type=FilePath, metavar="IN...")
@click.option(
    "-o",
    "--output",
    type=FilePath,
    help="A file for one input, '-' for stdout, else a folder. [default: beside each input]",
)
@click.option(
    "--ext",
    type=click.Choice(["png", "jpg", "webp", "tif", "avif", "bmp"]),
    default="png",
    show_default=True,
    help="Format of results that -o does not name.",
)
@click.option(
    "--quality",
    type=click.IntRange(1, 100),
    help="Of lossy formats. [default: jpg 95, avif 90, webp lossless]",
)
@click.option("--suffix", help="Put behind each input's name. [default: the size, like _x4]")
@click.option("--strip", is_flag=True, help="Leave out EXIF, XMP and DPI; the ICC profile stays.")
@click.option(
    "--scale",
    type=click.FloatRange(0, 4, min_open=True),
    help="Enlarge by so much: 2, 3, 1.5. [default: 4]",
)
@click.option(
    "--max-size",
    type=click.IntRange(1, LARGEST_SIDE),
    metavar="PIXELS",
    help="Longest side of a result; at most four times the input.",
)
@click.option("--to", "fit", type=Box(), help="Fit inside, like 3840x2160; at most four times.")
@click.option("-r", "--recursive", is_flag=True, help="Take folders, with all folders below.")
@click.option(
    "--skip-existing/--overwrite",
    help="What to do with results that are already there. [default: overwrite]",
)
@click.option("-n", "--dry-run", is_flag=True, help="Only print what would become what.")
@click.option(
    "--max-pixels",
    type=click.IntRange(1),
    help="Refuse larger inputs unread. [default: 134217728]",
)
@click.option("-q", "--quiet", is_flag=True, help="No progress and no summary on stderr.")
@running_options
def infer(
    inputs: tuple[Path, ...],
    output: Path | None,
    ext: str,
    suffix: str | None,
    recursive: bool,
    skip_existing: bool,
    dry_run: bool,
    quiet: bool,
    scale: float | None,
    max_size: int | None,
    fit: tuple[int, int] | None,
    quality: int | None,
    strip: bool,
    max_pixels: int | None,
    **running: Any,
) -> None:
    """Upscale images: files, folders (-r), patterns, or '-' for stdin.

    The path of every result goes to stdout. One bad file does not stop the others; the exit status
    is 1 then.

    \b
    agsr infer photo.jpg                      photo_x4.png beside it
    agsr infer *.png -o large/ --ext jpg      many files into a folder
    agsr infer -r album/ -o large/            a tree of folders, repeated in large/
    agsr infer photo.jpg --to 3840x2160       as large as fits
    agsr infer photo.png --steps 1            more than twice as fast, a little softer
    agsr infer - < in.png > out.png
    """
    from agsr.decode import MAX_PIXELS
    from agsr.engines.jobs import STREAM, plan
    from agsr.engines.pipeline import InferOptions

    sizing = _sizing(scale, max_size, fit)
    suffix = sizing.suffix if suffix is None else suffix
    jobs = plan(
        *(inputs, output),
        suffix=suffix,
        extension=f".{ext}",
        recursive=recursive,
        quality=quality,
    )
    if jobs[0].target == STREAM and sys.stdout.isatty():
        raise click.UsageError("an image would go to the terminal; name a file or redirect stdout")
    todo = [job for job in jobs if not (skip_existing and job.target.exists())]
    if dry_run:
        for job in todo:
            click.echo(f"{job.source} → {job.target}")
        return
    options = InferOptions(
        sizing=sizing, quality=quality, strip=strip, max_pixels=max_pixels or MAX_PIXELS
    )
    failed = 0
    if todo:
        with open_upscaler(**running) as upscaler:
            failed = _run(upscaler, todo, options, quiet)
    if len(jobs) > 1 and not quiet:
        _summarise(len(todo) - failed, len(jobs) - len(todo), failed)
    if failed:
        raise SystemExit(1)


def _sizing(scale: float | None, max_size: int | None, fit: tuple[int, int] | None) -> Sizing:
    from agsr.sizing import Sizing

    if sum(option is not None for option in (scale, max_size, fit)) > 1:
        raise click.UsageError("--scale, --max-size and --to exclude one another")
    if scale is not None:
        try:
            return Sizing(scale=scale)
        except ValueError as error:  # not a number
            raise click.BadParameter(str(error), param_hint="--scale") from None
    return Sizing(box=(max_size, max_size) if max_size else fit)


def _run(upscaler: Upscaler, jobs: Sequence[Job], options: InferOptions, quiet: bool) -> int:
    """Upscale files; prints their results and errors. Returns the number of errors."""
    from PIL import Image

    from agsr.console import BatchProgress
    from agsr.engines.jobs import STREAM
    from agsr.engines.pipeline import process
    from agsr.image import quiet_decoders

    Image.MAX_IMAGE_PIXELS = None  # --max-pixels takes its place
    failed = 0
    with quiet_decoders(), BatchProgress(len(jobs), quiet) as progress:
        for outcome in process(upscaler, jobs, options, progress.update):
            failed += outcome.error is not None
            with progress.cleared():
                if outcome.error is not None:
                    click.echo(f"Error: {outcome.error}", err=True)
                elif outcome.job.target != STREAM:
                    click.echo(outcome.job.target)
    return failed


def _summarise(done: int, skipped: int, failed: int) -> None:
    counts = {"upscaled": done, "already there": skipped, "failed": failed}
    told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    click.echo(told, err=True)
