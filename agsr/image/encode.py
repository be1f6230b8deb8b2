"""`Stripes` or a `Picture` → bytes of an image file, by the ending of its name.

What a format can't hold is reduced, never refused: 16 bits to 8, transparency to the picture on
white. `agsr.image.formats.png_writer` and `agsr.image.formats.tiff_writer` write while the bands
arrive; Pillow writes the other formats, and wants the whole picture.
"""

from __future__ import annotations

import io
import logging
import struct
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from agsr.errors import ImageError
from agsr.image.formats.fitting import fitted_metadata
from agsr.image.formats.png_writer import write_png
from agsr.image.formats.writable import FORMATS as FORMATS
from agsr.image.formats.writable import Format as Format
from agsr.image.metadata import Metadata, usable_profile
from agsr.image.metadata.boxes import place_of_codes
from agsr.image.metadata.exif import ORIENTATION, parse_exif
from agsr.image.metadata.exif_changes import INCH, with_density
from agsr.image.metadata.found import whole_density
from agsr.image.metadata.iptc import jpeg_segment
from agsr.image.picture import Picture, Pixels, Stripes, in_stripes, samples_of
from agsr.system.quiet_stderr import decoding

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
        from agsr.image.formats.tiff_writer import write_tiff  # slow to load, and needed here only

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
        _log.warning("%s: 16 bits become 8, the most of %s", name, form.name)
    if stripes.opacity and not form.alpha:
        _log.warning("%s: is laid on white, since %s has no alpha", name, form.name)
    if stripes.channels == 1 and not form.grey:
        metadata = replace(metadata, icc=usable_profile(metadata.icc, 3, name))
    channels = stripes.channels if form.grey else 3
    return stripes.mapped(
        lambda band: _fitted_band(band, form),
        dtype=stripes.dtype if form.deep else np.dtype(np.uint8),
        opacity=stripes.opacity and form.alpha,
        channels=channels,
        metadata=fitted_metadata(metadata, form, channels, name),
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


def _by_pillow(
    stripes: Stripes, stream: BinaryIO, form: Format, quality: int | None, name: str
) -> None:
    options = _pillow_metadata(stripes.metadata, form)
    if form.name in ("JPEG", "AVIF"):
        options["subsampling"] = "4:4:4"  # colour as sharp as brightness
    if form.quality is not None:
        options["quality"] = form.quality if quality is None else quality
        options["lossless"] = quality is None  # heeded by WebP only, like the next
        options["exact"] = stripes.separate_alpha  # or colour under 0 would become black
    given = {key: value for key, value in options.items() if value is not None}
    image, changed = _in_pillow(stripes), _changed_afterwards(stripes.metadata, form)
    target = io.BytesIO() if changed else stream
    try:
        with decoding():
            image.save(target, form.name, **given)
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # not of the encoder's own
            raise
        size = f"{stripes.width}x{stripes.height}"
        raise ImageError(f"{name}: can't encode {size} as {form.name}: {error}") from None
    if isinstance(target, io.BytesIO) and changed:
        stream.write(_with_changes(target.getbuffer(), stripes.metadata, form))


def _pillow_metadata(metadata: Metadata, form: Format) -> dict[str, Any]:
    """What Pillow is given for a format; None for nothing."""
    exif, dpi = metadata.exif, metadata.dpi
    if not form.dpi and dpi is not None and form.profile:
        exif = with_density(parse_exif(exif or b""), dpi, INCH).to_bytes()
    if form.name == "AVIF" and exif is not None:  # else Pillow would write the block again
        block = parse_exif(exif)
        block.main.pop(ORIENTATION, None)
        exif = None if block.empty else block.to_bytes()
    options = {"icc_profile": metadata.icc, "exif": exif, "dpi": dpi, "xmp": metadata.xmp}
    if form.name == "BMP" and dpi is None:
        options["dpi"] = 0, 0  # else Pillow would make one up
    if form.name == "JPEG":
        options["comment"] = metadata.text[0].text.encode() if metadata.text else None
        options["extra"] = jpeg_segment(metadata.iptc) if metadata.iptc else None
        if metadata.aspect is not None:
            options["dpi"] = whole_density(metadata.aspect)
    return options


def _changed_afterwards(metadata: Metadata, form: Format) -> bool:
    """Whether a file holds something that Pillow can't be asked for."""
    aspect = form.name == "JPEG" and metadata.aspect is not None
    return aspect or (form.name == "AVIF" and metadata.colour is not None)


def _with_changes(content: memoryview, metadata: Metadata, form: Format) -> bytearray:
    changed = bytearray(content)
    if form.name == "JPEG" and changed[6:11] == b"JFIF\0":
        changed[13] = 0  # the densities are a ratio, in no unit
    elif metadata.colour is not None and (codes := metadata.colour.code_points):
        place = place_of_codes(bytes(changed[:4096]))
        if place is not None:
            struct.pack_into(">HH", changed, place, *codes)
    return changed


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
