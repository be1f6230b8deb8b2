"""``agsr infer``: image files in, upscaled files out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from agsr.cli.constraints import INFER, check_kinds, check_options, is_folder, is_given
from agsr.cli.infer_report import note_no_effect, note_seams
from agsr.cli.infer_request import (
    check_inputs,
    cluster_options,
    cluster_request,
    count_left_out,
    count_skipped,
    count_unread,
    image_ending,
    of_shard,
    open_manifest,
    output_size,
    report_early,
    to_do,
    warn_of_doubts,
)
from agsr.cli.infer_run import run_all, run_pool, summary_if_interrupted
from agsr.cli.infer_video import SECTION as VIDEO_SECTION
from agsr.cli.infer_video import check_encodings, video_options
from agsr.cli.network import Network
from agsr.cli.param_types import AliasChoice, FileLocation, Size
from agsr.cli.params import Sectioned, blend_option, running_options
from agsr.contract import SCALE
from agsr.image.formats.names import FORMAT_ALIASES, FORMAT_CHOICES
from agsr.image.ops.output_size import LARGEST, LARGEST_SIDE
from agsr.store.address import Address, Location, to_location
from agsr.system.text import printable
from agsr.video.formats import WRITABLE, can_read_videos

if TYPE_CHECKING:
    from agsr.engines.batch.manifest import Manifest
    from agsr.engines.batch.plan import Job

UNKNOWN_SIZE = "_x?"
"""Suffix of results' names while the network's scale isn't known yet."""

SECTIONS = {
    "Results": ("output", "ext", "quality", "suffix", "strip"),
    "Size": ("scale", "max_size", "fit"),
    **VIDEO_SECTION,
    "Textures": ("separate_alpha", "normal_map", "border"),
    "Many files": (
        "more",
        "recursive",
        "skip_existing",
        "dry_run",
        "max_pixels",
        *("shard", "devices", "ray", "workers", "manifest"),
    ),
    "Messages": ("quiet", "verbose"),
}
"""Options as the help groups them; those of the network follow."""


@click.command(
    cls=Sectioned, sections=SECTIONS, rest="Network", short_help="Upscale images and videos."
)
@click.argument("inputs", nargs=-1, type=FileLocation, metavar="IN...")
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    help="A file for one input, '-' for stdout, else a folder, as is every name that ends in '/'. "
    "[default: beside each input]",
)
@click.option(
    "-f",
    "--ext",
    type=AliasChoice(FORMAT_CHOICES, FORMAT_ALIASES),
    help="Format of images, or of videos, that -o does not name; 'same': each input's own, or png "
    "if that can't be written. [default: png; videos: their own]",
)
@click.option(
    "--quality",
    type=click.IntRange(1, 100),
    help="Of lossy images. [default: jpg 95, avif 90, webp lossless]",
)
@click.option("--suffix", help="Put behind each input's name. [default: the size, like _x4]")
@click.option(
    "--strip",
    is_flag=True,
    help="Write no EXIF, XMP and DPI, but the ICC profile; of videos, no titles and places.",
)
@click.option(
    "--separate-alpha",
    is_flag=True,
    help="Alpha is data like gloss or height, not opacity: colours under 0 are preserved.",
)
@click.option(
    "--normal-map",
    is_flag=True,
    help="Inputs are tangent-space normal maps: results have vectors of unit length, and blue "
    "where an input has two channels. Alpha is data, too.",
)
@click.option(
    "--scale",
    "--outscale",
    type=click.FloatRange(0, LARGEST, min_open=True),
    help="Enlarge by so much: 2, 3, 1.5; above the network's own scale in two passes, up to 16 for "
    "x4. [default: the network's: 4]",
)
@click.option(
    "--max-size",
    type=click.IntRange(1, LARGEST_SIDE),
    metavar="PIXELS",
    help="Longest side of a result; at most two passes of the network: 16 times the input for x4.",
)
@click.option("--to", "fit", type=Size(), help="Fit inside, like 3840x2160; limits likewise.")
@click.option(
    "-i",
    "--input",
    "more",
    type=FileLocation,
    multiple=True,
    metavar="IN",
    help="An input, like IN... without the option; repeatable.",
)
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
@cluster_options
@click.option("-q", "--quiet", is_flag=True, help="Only errors and warnings on stderr.")
@click.option(
    "-v", "--verbose", is_flag=True, help="Print what runs and why, and the names of skipped files."
)
@video_options
@blend_option
@running_options
@click.option("--half", is_flag=True, help="--precision fp16.")
@click.option("--fp32", is_flag=True, help="--precision fp32.")
@click.pass_context
def infer(
    context: click.Context,
    /,
    inputs: tuple[Location, ...],
    more: tuple[Location, ...],
    output: str | None,
    ext: str | None,
    suffix: str | None,
    recursive: bool,
    skip_existing: bool,
    dry_run: bool,
    quiet: bool,
    verbose: bool,
    half: bool,
    fp32: bool,
    scale: float | None,
    max_size: int | None,
    fit: tuple[int, int] | None,
    quality: int | None,
    strip: bool,
    separate_alpha: bool,
    normal_map: bool,
    max_pixels: int | None,
    shard: str | None,
    devices: str | None,
    ray: str | None,
    workers: str | None,
    manifest: Location | None,
    codec: str | None,
    crf: int | None,
    preset: str | None,
    **running: Any,
) -> None:
    """Upscale images and videos: files, folders (-r), patterns, or '-' for stdin.

    The path of every result goes to stdout, messages go to stderr. One bad file does not stop the
    others; the exit status is 1 then. Results of earlier runs are no inputs while their sources
    are there too, so that a command can be repeated.

    \b
    agsr infer photo.jpg                      photo_x4.png beside it
    agsr infer *.png -o large/ --ext jpg      many files into a folder
    agsr infer -r album/ -o large/            a tree of folders, repeated in large/
    agsr infer -r album/ --skip-existing      go on where it stopped
    agsr infer photo.jpg --to 3840x2160       as large as fits
    agsr infer photo.jpg -w photo             removes traces of JPEG, noise and slight blur
    agsr infer photo.png -w gan               crisp; fine texture is plausible, not true
    agsr infer photo.png --steps 1            more than twice as fast, a little softer
    agsr infer - < in.png > out.png
    agsr infer clip.mp4 -o large.mkv          with its sound; run again, it goes on where it stopped
    """
    from PIL import Image

    from agsr.cli.output.infer import Tally
    from agsr.engines.batch.plan import STREAM, plan
    from agsr.engines.batch.runner import InferOptions
    from agsr.engines.batch.shard import Shard
    from agsr.image.decode import MAX_PIXELS
    from agsr.store.listing import Listings
    from agsr.store.locations import check_writable, remove_abandoned

    check_options(context, INFER)
    Image.MAX_IMAGE_PIXELS = None  # --max-pixels takes its place
    chosen_files, tally, listings = check_inputs(inputs + more), Tally(), Listings()
    part = None if shard is None else Shard.parse(shard)
    running["precision"] = "fp16" if half else "fp32" if fp32 else running["precision"]
    running |= {"separate_alpha": separate_alpha, "normal_map": normal_map}
    cluster = cluster_request(ray, workers)
    results = None if output is None else to_location(output)
    if isinstance(results, Address):
        check_writable(results)
    with Network(running, verbose, devices, cluster) as network:
        planned = partial(
            plan,
            chosen_files,
            results,
            extension=image_ending(ext),
            recursive=recursive,
            quality=quality,
            folder=output is not None and is_folder(output),
            video_extension=f".{ext}" if f".{ext}" in WRITABLE else None,
            videos=can_read_videos(),
            listings=listings,
        )
        encoding = {"codec": codec, "crf": crf, "preset": preset}
        encoded = any(value is not None for value in encoding.values()) and can_read_videos()

        def checked(jobs: list[Job], tally: Tally) -> list[Job]:
            check_kinds(context, jobs)
            if encoded:
                check_encodings(jobs, encoding)
            return jobs if part is None else of_shard(jobs, part, tally)

        def opened_manifest(jobs: Sequence[Job]) -> Manifest | None:
            return None if dry_run else open_manifest(manifest, jobs, results, cluster is not None)

        known, reported = network.declared_scale(), dict[Location, str]()
        if known is None:  # opening it takes seconds
            early = checked(planned(suffix=suffix or UNKNOWN_SIZE), Tally())
            reported |= report_early(early, tally, quiet, opened_manifest)
            known = network.scale() if early else SCALE
        sizing = output_size(scale, max_size, fit, known)
        jobs = planned(
            suffix=sizing.suffix if suffix is None else suffix,
            on_result=lambda path, source: count_left_out(path, source, tally, verbose),
            on_unsupported=lambda path: count_unread(path, tally, verbose),
            on_skipped=lambda file: count_skipped(file, tally, verbose),
        )
        jobs = checked(jobs, tally)
        tally.manifest = opened_manifest(jobs)
        todo = to_do(jobs, skip_existing, tally, listings, reported)
        options = InferOptions(
            sizing=sizing,
            quality=quality,
            strip=strip,
            max_pixels=max_pixels or MAX_PIXELS,
            unknown_as_alpha=separate_alpha or normal_map,
        )
        if dry_run:
            warn_of_doubts(todo)
            for job in todo:
                click.echo(printable(f"{job.source} → {job.target}"))
            tally.done = len(todo)
        else:
            for folder in {job.target.parent for job in jobs if job.target != STREAM}:
                remove_abandoned(folder)
        if todo and not dry_run:
            upscaler = network.pool(jobs) if network.is_pool else network.upscaler(jobs)
            warn_of_doubts(todo)  # now that nothing else can prevent it
            with summary_if_interrupted(tally, 0 if quiet else len(todo)):
                chosen = separate_alpha or normal_map or is_given(context, "weights")
                weights = "" if chosen else running["weights"]
                run: Any = run_pool if network.is_pool else run_all
                run(upscaler, todo, options, encoding, tally, quiet, weights)
                if not quiet:
                    names = ("separate_alpha", "halo")
                    note_no_effect(upscaler, [n for n in names if is_given(context, n)], tally)
                    note_seams(upscaler)
    tally.flush()
    if (len(jobs) > 1 or tally.skipped or verbose) and not quiet:
        click.echo(tally.summary("to upscale" if dry_run else "upscaled"), err=True)
    if tally.failed:
        raise SystemExit(1)
