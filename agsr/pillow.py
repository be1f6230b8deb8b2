"""`Picture` ↔ Pillow images: grey as grey, alpha apart, palettes and CMYK as colours."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np
from PIL import Image, ImageCms

from agsr.errors import ImageError
from agsr.metadata import Metadata
from agsr.picture import Picture

_KEPT: Final = ("icc_profile", "exif", "xmp", "dpi")


def from_pillow(image: Image.Image, metadata: Metadata, name: str) -> Picture:
    """Pixels and alpha of a loaded Pillow image of at most 8 bits per channel.

    Raises:
        ImageError: Its mode is none of those.
    """
    if image.mode in ("CMYK", "LAB"):
        return Picture(
            np.asarray(_converted(image, metadata.icc)), None, replace(metadata, icc=None)
        )
    grey = image.mode in ("1", "L", "LA", "La")
    if image.mode not in ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr") and not grey:
        raise ImageError(f"{name}: {image.mode} pixels; expected 8 bits per channel")
    if not image.has_transparency_data:
        return Picture(np.array(image.convert("L" if grey else "RGB")), None, metadata)
    planes = np.asarray(_with_alpha(image, grey))
    colour = planes[..., 0] if grey else planes[..., :3]
    return Picture(np.ascontiguousarray(colour), planes[..., -1].copy(), metadata)


def to_pillow(picture: Picture) -> Image.Image:
    """An image of mode L, LA, RGB, RGBA or I;16; 16 bits of other kinds Pillow doesn't have."""
    pixels = picture.pixels if picture.pixels.ndim == 3 else picture.pixels[..., None]
    if picture.alpha is not None:
        pixels = np.concatenate([pixels, picture.alpha[..., None]], axis=2)
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def upscaled_pillow(image: Image.Image, upscale: Callable[[Picture], Picture]) -> Image.Image:
    """What ``upscale`` makes of an image, with the image's metadata.

    Raises:
        ImageError: The image's mode has more than 8 bits per channel, and is not I;16.
    """
    if image.mode.startswith("I;16"):
        picture = Picture(np.asarray(image).astype(np.uint16))
    else:
        picture = from_pillow(image, Metadata(icc=image.info.get("icc_profile")), "image")
    result = to_pillow(upscale(picture))
    result.info = {key: image.info[key] for key in _KEPT if key in image.info}
    if picture.metadata.icc is None:  # its colours have been converted
        result.info.pop("icc_profile", None)
    return result


def _with_alpha(image: Image.Image, grey: bool) -> Image.Image:
    if grey:  # of 1, Pillow makes no LA; of La, only RGBA's pendant
        return image.convert("L" if image.mode == "1" else image.mode).convert("LA")
    return image.convert("RGBA")


def _converted(image: Image.Image, icc: bytes | None) -> Image.Image:
    """CMYK or LAB as sRGB, by its profile where it has a usable one."""
    try:
        if image.mode == "LAB":
            source: Any = ImageCms.createProfile("LAB")
        else:
            source = ImageCms.ImageCmsProfile(io.BytesIO(icc or b""))
        srgb = ImageCms.createProfile("sRGB")
        done = ImageCms.profileToProfile(image, source, srgb, outputMode="RGB")
    except (OSError, ImageCms.PyCMSError):
        return image.convert("RGB")
    assert done is not None  # it is None only where the work is done in place
    return done
