"""Make the pictures of the documentation: before/after crops and attention maps.

    python scripts/make_figures.py PHOTO_HR.png [CROP_Y CROP_X]

The photo is shrunk by four and enlarged again, by Bicubic and by the shipped weights. CROP_Y and
CROP_X are the top-left corner of the enlarged crop, in HR pixels.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from agsr.catalog import find_checkpoint
from agsr.checkpoint import load_checkpoint
from agsr.engines.upscaler import Upscaler
from agsr.image import Picture, read_rgb, write_picture
from agsr.metrics import psnr_y
from agsr.resize import crop_to_multiple, downscale, upscale

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
CROP = 128
ZOOM = 3
STEPS = 4

Image8 = NDArray[np.uint8]


def main(source: Path, y: int, x: int) -> None:
    """Write ``before-after.png`` and ``attention.png``."""
    hr = crop_to_multiple(read_rgb(source))
    lr = downscale(hr)
    with Upscaler("psnr", steps=STEPS) as upscaler:
        sr = upscaler(lr)
    bicubic = upscale(lr)
    nearest = lr.repeat(4, axis=0).repeat(4, axis=1)
    columns = [
        ("input, pixels repeated", nearest),
        (f"Bicubic  {psnr_y(bicubic, hr):.2f} dB", bicubic),
        (f"agsr, {STEPS} steps  {psnr_y(sr, hr):.2f} dB", sr),
        ("original", hr),
    ]
    crops = [_titled(_crop(image, y, x), title) for title, image in columns]
    _write(np.concatenate(crops, axis=1), "before-after.png")
    _write(_attention(lr), "attention.png")


def _attention(lr: Image8) -> Image8:
    """The photo and its attention map after each step, dark 0 to bright 1."""
    generator = load_checkpoint(find_checkpoint("psnr")).build()
    tensor = torch.from_numpy(lr.copy()).permute(2, 0, 1)[None].float() / 255
    maps = [m[0, 0].numpy() for m in generator.attention_maps(tensor, STEPS)]
    tiles = [_titled(_zoom(lr, 2), "input")]
    for step, plane in enumerate(maps, 1):
        title = f"A{step}  {plane.min():.2f} to {plane.max():.2f}"
        grey = cv2.cvtColor((plane * 255).astype(np.uint8), cv2.COLOR_GRAY2RGB)
        tiles.append(_titled(_zoom(np.asarray(grey, np.uint8), 2), title))
    return np.concatenate(tiles, axis=1)


def _crop(image: Image8, y: int, x: int) -> Image8:
    return _zoom(image[y : y + CROP, x : x + CROP], ZOOM)


def _zoom(image: Image8, factor: int) -> Image8:
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def _titled(image: Image8, title: str) -> Image8:
    """The image under a white band with its title, and a white margin at its right."""
    framed = np.asarray(
        cv2.copyMakeBorder(image, 28, 4, 4, 4, cv2.BORDER_CONSTANT, value=(255, 255, 255)), np.uint8
    )
    font, black = cv2.FONT_HERSHEY_SIMPLEX, (0, 0, 0)
    cv2.putText(framed, title, (6, 20), font, 0.5, black, 1, cv2.LINE_AA)
    return framed


def _write(image: Image8, name: str) -> None:
    write_picture(Picture(np.ascontiguousarray(image)), FIGURES / name)
    print(FIGURES / name)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 4):
        sys.exit(__doc__)
    corner = [int(value) for value in sys.argv[2:]] or [40, 150]
    main(Path(sys.argv[1]), *corner)
