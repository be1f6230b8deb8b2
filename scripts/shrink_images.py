"""Write the images of tar files, shrunk, into a folder, as more images to train on.

    python scripts/shrink_images.py 0.7 runs/shrunk train/shard-0.tar train/shard-1.tar

Photographs are mostly JPEG files: at 0.7 of their size what the compression left behind is gone.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import click
from PIL import Image

from agsr.datasets.pairs import IMAGE_SUFFIXES

PATH = click.Path(path_type=Path)


@click.command(help=__doc__)
@click.argument("share", type=click.FloatRange(0, 1, min_open=True))
@click.argument("target", type=PATH)
@click.argument("tars", type=PATH, nargs=-1, required=True)
@click.option("--least", default=192, show_default=True, help="Shortest side that is kept.")
def main(share: float, target: Path, tars: tuple[Path, ...], least: int) -> None:
    """Shrink by Pillow's antialiased bicubic filter; PNG files named by tar file and image."""
    target.mkdir(parents=True, exist_ok=True)
    count = 0
    for name, content in _images(tars):
        image = Image.open(io.BytesIO(content)).convert("RGB")
        width, height = (int(side * share) for side in image.size)
        if min(width, height) >= least:
            small = image.resize((width, height), Image.Resampling.BICUBIC)
            small.save(target / f"{name}.png", compress_level=1)
            count += 1
    click.echo(f"{count} images in {target}")


def _images(tars: tuple[Path, ...]) -> Iterator[tuple[str, bytes]]:
    for path in tars:
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member)
                if file is not None and Path(member.name).suffix.lower() in IMAGE_SUFFIXES:
                    yield f"{path.stem}-{Path(member.name).stem}", file.read()


if __name__ == "__main__":
    main()
