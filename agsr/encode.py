"""`Picture` → bytes of an image file, by the ending of its name.

What a format can't hold is reduced, never refused: 16 bits to 8, transparency to the picture on
white. Pillow writes 8 bits; `agsr.png16` and `agsr.tiff` what it can't.
"""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, features

from agsr.deflate import LEVEL
from agsr.errors import ImageError
from agsr.metadata import Metadata, usable_profile, with_dpi
from agsr.picture import Picture, Pixels
from agsr.png16 import encode_png16
from agsr.tiff import encode_tiff


@dataclass(frozen=True, kw_only=True)
class Format:
    """What a file format can hold, and how it is asked for."""

    name: str
    """Pillow's."""
    deep: bool = False
    """Holds 16 bits per channel."""
    alpha: bool = True
    grey: bool = True
    profile: bool = True
    """Holds an ICC profile, EXIF and XMP."""
    quality: int | None = None
    """What Pillow is given where none is asked for; None for a format without such a thing."""
    segment: int | None = None
    """Most bytes of EXIF or of XMP."""
    dpi: bool = True
    """Has a place for the resolution; else EXIF tells it."""
    largest_side: int | None = None
    """Most pixels of a row or of a column."""


_WEBP_EFFORT = 50
"""Of lossless WebP, which Pillow calls quality: on photos as small as 100, in a quarter."""

_PNG = Format(name="PNG", deep=True)
_TIFF = Format(name="TIFF", deep=True)
_JPEG = Format(name="JPEG", alpha=False, quality=95, segment=65_000, largest_side=65_500)
FORMATS: Final = {
    ".png": _PNG,
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": Format(name="WEBP", grey=False, quality=_WEBP_EFFORT, dpi=False, largest_side=16_383),
    ".avif": Format(name="AVIF", grey=False, quality=90, dpi=False),
    ".bmp": Format(name="BMP", alpha=False, profile=False),
}
"""By the ending of a file's name."""

_log = logging.getLogger(__name__)


def check_writable(name: str, suffix: str, quality: int | None = None) -> Format:
    """The format of a suffix.

    Args:
        name: Of the file, for messages.
        suffix: With its dot, in any case.
        quality: 1 to 100, for formats that have such a thing.

    Raises:
        ImageError: Such files can't be written, or have no quality to choose.
    """
    form = FORMATS.get(suffix.lower())
    if form is None:
        raise ImageError(
            f"{name}: can't write {suffix or 'a file without suffix'}; "
            f"expected one of {' '.join(FORMATS)}"
        )
    if form.name == "AVIF" and not features.check("avif"):
        raise ImageError(f"{name}: the Pillow installed here can't write AVIF; use WebP")
    if quality is not None and form.quality is None:
        raise ImageError(f"{name}: {form.name} has no quality to choose; jpg, webp and avif have")
    return form


def check_size(name: str, suffix: str, height: int, width: int) -> None:
    """Find out before anything is computed whether a format can hold a result.

    Args:
        name: Of the file, for messages.
        suffix: One of `FORMATS`.
        height: Of the result, pixels.
        width: Of the result, pixels.

    Raises:
        ImageError: It can't.
    """
    form = FORMATS[suffix.lower()]
    if form.largest_side is not None and max(height, width) > form.largest_side:
        raise ImageError(
            f"{name}: the result would have {width}x{height} pixels, and {form.name} holds "
            f"{form.largest_side} a side; use PNG, or --max-size {form.largest_side}"
        )


def encode(picture: Picture, suffix: str, name: str, quality: int | None = None) -> bytes:
    """The bytes of an image file.

    Args:
        picture: Any; what the format can't hold is reduced.
        suffix: One of `FORMATS`.
        name: Of the file, for messages.
        quality: 1 to 100; None for 95 in JPEG, 90 in AVIF, and WebP without loss.

    Raises:
        ImageError: The suffix is unknown, or the picture is larger than the format can hold.
    """
    form = check_writable(name, suffix, quality)
    fitted = _fitted(picture, form, name)
    samples = _interleaved(fitted.pixels, fitted.alpha)
    try:
        if form.name == "TIFF":
            return encode_tiff(samples, fitted.metadata)
        if samples.dtype == np.uint16:
            return encode_png16(samples, fitted.metadata)
        return _by_pillow(samples, fitted.metadata, form, quality)
    except (OSError, ValueError, RuntimeError) as error:
        height, width = samples.shape[:2]
        raise ImageError(f"{name}: can't encode {width}x{height} as {form.name}: {error}") from None


def on_white(pixels: Pixels, alpha: Pixels) -> NDArray[np.uint8]:
    """What is seen of 8-bit pixels before a white page."""
    share = alpha.astype(np.float32) / 255
    if pixels.ndim == 3:
        share = share[..., None]
    return np.rint(pixels * share + 255 * (1 - share)).astype(np.uint8)


def _fitted(picture: Picture, form: Format, name: str) -> Picture:
    """The picture within what the format can hold."""
    pixels: Any = picture.pixels
    alpha = picture.alpha
    if not form.deep:
        pixels, alpha = _to_uint8(pixels), None if alpha is None else _to_uint8(alpha)
    if alpha is not None and not form.alpha:
        pixels, alpha = on_white(pixels, alpha), None
    metadata = picture.metadata.for_size(*pixels.shape[:2])
    if pixels.ndim == 2 and not form.grey:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
        metadata = replace(metadata, icc=usable_profile(metadata.icc, 3, name))
    return Picture(pixels, alpha, _fitting_metadata(metadata, form, name))


def _fitting_metadata(metadata: Metadata, form: Format, name: str) -> Metadata:
    if not form.profile:
        return Metadata(dpi=metadata.dpi)
    for field in ("exif", "xmp"):
        data = getattr(metadata, field)
        if form.segment is not None and data is not None and len(data) > form.segment:
            _log.warning("%s: %s is too long for %s, and left out", name, field.upper(), form.name)
            metadata = replace(metadata, **{field: None})
    return metadata


def _interleaved(pixels: Pixels, alpha: Pixels | None) -> Any:
    """``(H, W, C)`` of colour or grey, and alpha."""
    planes = pixels if pixels.ndim == 3 else pixels[..., None]
    return planes if alpha is None else np.concatenate([planes, alpha[..., None]], axis=2)


def _by_pillow(
    samples: NDArray[np.uint8], metadata: Metadata, form: Format, quality: int | None
) -> bytes:
    image = Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)
    options: dict[str, Any] = {
        "icc_profile": metadata.icc,
        "exif": metadata.exif if form.dpi else with_dpi(metadata.exif, metadata.dpi),
        "dpi": metadata.dpi,
    }
    if form.name == "PNG":
        options |= {"pnginfo": _png_texts(metadata), "compress_level": LEVEL}
    else:
        options["xmp"] = metadata.xmp
    if form.name in ("JPEG", "AVIF"):
        options["subsampling"] = "4:4:4"  # colour as sharp as brightness
    if form.quality is not None:
        options["quality"] = form.quality if quality is None else quality
        options["lossless"] = quality is None  # heeded by WebP only
    stream = io.BytesIO()
    given = {key: value for key, value in options.items() if value is not None}
    image.save(stream, form.name, **given)
    return stream.getvalue()


def _png_texts(metadata: Metadata) -> PngImagePlugin.PngInfo:
    texts = PngImagePlugin.PngInfo()
    if metadata.xmp:
        texts.add_itxt("XML:com.adobe.xmp", metadata.xmp.decode(errors="replace"))
    return texts


def _to_uint8(pixels: Pixels) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8, copy=False)
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
