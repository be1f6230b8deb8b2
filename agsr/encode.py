"""`Stripes` or a `Picture` → bytes of an image file, by the ending of its name.

What a format can't hold is reduced, never refused: 16 bits to 8, transparency to the picture on
white. `agsr.png` and `agsr.tiff` write while the bands arrive; Pillow writes the other formats, and
wants the whole picture.
"""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from agsr.errors import ImageError
from agsr.metadata import Metadata, usable_profile, with_dpi
from agsr.picture import Picture, Pixels, Stripes, in_stripes, samples_of
from agsr.png import write_png


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
    lossy: bool = False
    """Changes pixels whatever the quality."""
    quality: int | None = None
    """What Pillow is given where none is asked for; None for a format without such a thing."""
    segment: int | None = None
    """Most bytes of EXIF or of XMP."""
    dpi: bool = True
    """Has a place for the resolution; else EXIF tells it, where there is a place for that."""
    largest_side: int | None = None
    """Most pixels of a row or of a column."""
    memory: int | None = None
    """Bytes that Pillow takes per pixel, measured; None where bands are written one by one."""
    usual_share: float
    """Size of a photograph's file, as a share of its pixels' bytes."""
    least_share: float = 0.0
    """The same of the smallest file that there can be."""

    def stored_bytes(self, stripes: Stripes) -> int:
        """Bytes of what the format holds of a picture, not compressed."""
        channels = stripes.channels if self.grey else 3
        samples = channels + (stripes.opacity and self.alpha)
        depth = stripes.dtype.itemsize if self.deep else 1
        return stripes.height * stripes.width * samples * depth


_WEBP_EFFORT = 50
"""Of lossless WebP, which Pillow calls quality: on photos as small as 100, in a quarter."""

_DEFLATED: Final = 1 / 1032
"""The least that deflate makes of bytes."""

_PNG = Format(name="PNG", deep=True, usual_share=0.5, least_share=_DEFLATED)
_TIFF = Format(name="TIFF", deep=True, usual_share=0.6, least_share=_DEFLATED)
_JPEG = Format(
    name="JPEG",
    alpha=False,
    lossy=True,
    quality=95,
    segment=65_000,
    largest_side=65_500,
    memory=5,
    usual_share=0.2,
)
_WEBP = Format(
    name="WEBP",
    grey=False,
    quality=_WEBP_EFFORT,
    dpi=False,
    largest_side=16_383,
    memory=40,
    usual_share=0.5,
)
_AVIF = Format(
    name="AVIF", grey=False, lossy=True, quality=90, dpi=False, memory=40, usual_share=0.1
)
_BMP = Format(name="BMP", alpha=False, profile=False, memory=5, usual_share=1, least_share=1)
_TGA = Format(
    name="TGA",
    profile=False,
    dpi=False,
    largest_side=65_535,
    memory=5,
    usual_share=1,
    least_share=1,
)
FORMATS: Final = {
    ".png": _PNG,
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": _WEBP,
    ".avif": _AVIF,
    ".bmp": _BMP,
    ".tga": _TGA,
}
"""By the ending of a file's name."""

_log = logging.getLogger(__name__)


def check_format(name: str, suffix: str, quality: int | None = None) -> Format:
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


def check_alpha(name: str, suffix: str, stripes: Stripes) -> None:
    """Find out before anything is computed whether a format can hold alpha that is data.

    Args:
        name: Of the file, for messages.
        suffix: One of `FORMATS`.
        stripes: The result.

    Raises:
        ImageError: It has no alpha, and would get the picture on white.
    """
    form = FORMATS[suffix.lower()]
    if stripes.opacity and stripes.separate_alpha and not form.alpha:
        raise ImageError(f"{name}: its alpha is data, and {form.name} holds none; use PNG")


def encode(picture: Picture, suffix: str, name: str, quality: int | None = None) -> bytes:
    """The bytes of an image file; see `write_encoded`."""
    stream = io.BytesIO()
    write_encoded(in_stripes(picture), stream, suffix, name, quality)
    return stream.getvalue()


def write_encoded(
    stripes: Stripes, stream: BinaryIO, suffix: str, name: str, quality: int | None = None
) -> None:
    """Write an image file.

    Args:
        stripes: Any; what the format can't hold is reduced.
        stream: At its beginning, and able to return there.
        suffix: One of `FORMATS`.
        name: Of the file, for messages.
        quality: 1 to 100; None for 95 in JPEG, 90 in AVIF, and WebP without loss.

    Raises:
        ImageError: The suffix is unknown, or the picture is larger than the format can hold.
        OSError: The stream can't be written.
    """
    form = check_format(name, suffix, quality)
    fitted = _fitted(stripes, form, name)
    if form.name == "PNG":
        write_png(fitted, stream)
    elif form.name == "TIFF":
        from agsr.tiff import write_tiff  # slow to load, and needed here only

        write_tiff(fitted, stream)
    else:
        _by_pillow(fitted, stream, form, quality, name)


def on_white(pixels: Pixels, alpha: Pixels) -> NDArray[np.uint8]:
    """What is seen of 8-bit pixels before a white page."""
    share = alpha.astype(np.float32) / 255
    if pixels.ndim == 3:
        share = share[..., None]
    return np.rint(pixels * share + 255 * (1 - share)).astype(np.uint8)


def _fitted(stripes: Stripes, form: Format, name: str) -> Stripes:
    """The picture within what the format can hold."""
    metadata = stripes.metadata.for_size(stripes.height, stripes.width)
    if stripes.dtype.itemsize > 1 and not form.deep:
        _log.info("%s: 16 bits become 8, the most of %s", name, form.name)
    if stripes.opacity and not form.alpha:
        _log.info("%s: is laid on white, since %s has no alpha", name, form.name)
    if stripes.channels == 1 and not form.grey:
        metadata = replace(metadata, icc=usable_profile(metadata.icc, 3, name))
    return stripes.mapped(
        lambda band: _fitted_band(band, form),
        dtype=stripes.dtype if form.deep else np.dtype(np.uint8),
        opacity=stripes.opacity and form.alpha,
        channels=stripes.channels if form.grey else 3,
        metadata=_fitting_metadata(metadata, form, name),
    )


def _fitted_band(band: Picture, form: Format) -> Picture:
    pixels: Any = band.pixels
    alpha = band.alpha
    if not form.deep:
        pixels, alpha = _to_uint8(pixels), None if alpha is None else _to_uint8(alpha)
    if alpha is not None and not form.alpha:
        pixels, alpha = on_white(pixels, alpha), None
    if pixels.ndim == 2 and not form.grey:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    return Picture(pixels, alpha)


def _fitting_metadata(metadata: Metadata, form: Format, name: str) -> Metadata:
    if not form.profile:
        return Metadata(dpi=metadata.dpi)
    for field in ("exif", "xmp"):
        data = getattr(metadata, field)
        if form.segment is not None and data is not None and len(data) > form.segment:
            _log.warning("%s: %s is too long for %s, and left out", name, field.upper(), form.name)
            metadata = replace(metadata, **{field: None})
    return metadata


def _by_pillow(
    stripes: Stripes, stream: BinaryIO, form: Format, quality: int | None, name: str
) -> None:
    metadata = stripes.metadata
    options: dict[str, Any] = {
        "icc_profile": metadata.icc,
        "exif": metadata.exif if form.dpi else with_dpi(metadata.exif, metadata.dpi),
        "dpi": metadata.dpi,
        "xmp": metadata.xmp,
    }
    if form.name in ("JPEG", "AVIF"):
        options["subsampling"] = "4:4:4"  # colour as sharp as brightness
    if form.quality is not None:
        options["quality"] = form.quality if quality is None else quality
        options["lossless"] = quality is None  # heeded by WebP only, like the next
        options["exact"] = stripes.separate_alpha  # or colour under 0 would become black
    given = {key: value for key, value in options.items() if value is not None}
    image = _in_pillow(stripes)
    try:
        image.save(stream, form.name, **given)
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # not of the encoder's own
            raise
        size = f"{stripes.width}x{stripes.height}"
        raise ImageError(f"{name}: can't encode {size} as {form.name}: {error}") from None


def _in_pillow(stripes: Stripes) -> Image.Image:
    """The whole picture, pasted together in Pillow's memory alone."""
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[stripes.samples]
    image, top = Image.new(mode, (stripes.width, stripes.height), None), 0  # None: not initialised
    for band in stripes.bands:
        samples = samples_of(band)
        image.paste(Image.fromarray(samples[..., 0] if stripes.samples == 1 else samples), (0, top))
        top += len(samples)
    return image


def _to_uint8(pixels: Pixels) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8, copy=False)
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
