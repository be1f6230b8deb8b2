"""``agsr eval``: PSNR and SSIM of a network on test sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agsr.cli.constraints import RUNNING, check_options
from agsr.cli.network import Network
from agsr.cli.param_types import FileLocation, FilePath
from agsr.cli.params import blend_option, lr_option, running_options
from agsr.store.address import Location
from agsr.system.text import counted, printable

if TYPE_CHECKING:
    from agsr.bench.data.sets import ImageSet, Skipped
    from agsr.bench.scoring import Distance
    from agsr.engines.upscaler import Upscaler


@click.command("eval", short_help="Score a network on test sets: PSNR and SSIM.")
@click.option(
    "--set",
    "sets",
    multiple=True,
    default=["Set5"],
    show_default=True,
    help="Set5, Set14, BSD100, Urban100, Manga109, or a folder of HR images; repeatable.",
)
@click.option("--data", type=FileLocation, help="Folder of the named sets. [default: $AGSR_DATA]")
@click.option("--fetch", is_flag=True, help="Fetch named sets that are not here, once.")
@lr_option
@blend_option
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
    data: Location | None,
    fetch: bool,
    lr: str,
    lpips: Path | None,
    as_json: bool,
    **running: Any,
) -> None:
    """Score the network: PSNR and SSIM on luma, per image and mean, beside Bicubic.

    LR images are made by the scale of the network; one that restores (x1) gets the HR images, and
    its PSNR shows how much it changes them. Shipped weights are scored in fp32 unless --precision
    says otherwise, so that scores do not depend on the machine.
    """
    check_options(context, RUNNING)
    from agsr.bench.scoring import lpips_alex
    from agsr.cli.output.tables import open_sets
    from agsr.engines.open import check_request
    from agsr.pretrained import is_path

    automatic = running["backend"] == "auto" and running["url"] is None
    if automatic and not is_path(running["weights"]):
        running["precision"] = running["precision"] or "fp32"
    check_request(**{name: running[name] for name in _REQUEST})
    distance = lpips_alex(lpips) if lpips else None
    with Network(running) as network:
        given = lr == "given"
        image_sets = open_sets(sets, data, fetch=fetch, use_lr=given, scale=network.scale())
        upscaler = network.upscaler()
        skipped = sum(_evaluate(upscaler, images, distance, as_json) for images in image_sets)
    if skipped:
        count = counted(skipped, "image")
        raise click.ClickException(f"{count} can't be used; the means are over the others")


_REQUEST = (
    *("backend", "weights", "steps", "provider", "device", "precision", "threads", "hints", "url"),
)
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
