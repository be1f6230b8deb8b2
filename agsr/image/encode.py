"""Encode `RowBands` or a `Picture`; the file name ending selects the format.

What a format can't hold is reduced with a warning, never rejected: 16 bits become 8, transparent
pixels are composited on white. `agsr.image.formats.png_writer` and
`agsr.image.formats.tiff_writer` write bands as they arrive; Pillow writes the other
formats and needs the whole picture.
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

from agsr.errors import ImageError, ImageRequestError
from agsr.image.formats.fitting import fitted_metadata
from agsr.image.formats.png_writer import write_png
from agsr.image.formats.writable import FORMATS as FORMATS
from agsr.image.formats.writable import Format as Format
from agsr.image.metadata import Metadata, usable_profile
from agsr.image.metadata.boxes import place_of_codes
from agsr.image.metadata.exif import ORIENTATION, parse_exif
from agsr.image.metadata.exif_changes import INCH, with_density
from agsr.image.metadata.iptc import jpeg_segment
from agsr.image.metadata.stored import whole_density
from agsr.image.picture import Picture, Pixels, RowBands, as_row_bands, samples_of
from agsr.system.quiet_stderr import decoding

_log = logging.getLogger(__name__)


def check_format(name: str, suffix: str, quality: int | None = None) -> Format:
    """Return the format for a suffix.

    Args:
        name: File name for messages.
        suffix: With its dot, in any case.
        quality: 1 to 100, for formats that have a quality setting.

    Raises:
        ImageRequestError: The format can't be written, or has no quality setting.

    >>> check_format("a.jpg", ".jpg").name
    'JPEG'
    """
    form = FORMATS.get(suffix.lower())
    if form is None:
        raise ImageRequestError(
            f"{name}: can't write {suffix or 'a file without suffix'}; "
            f"expected one of {' '.join(FORMATS)}"
        )
    if form.name == "AVIF" and not features.check("avif"):
        raise ImageRequestError(f"{name}: the Pillow installed here can't write AVIF; use WebP")
    if quality is not None and form.quality is None:
        raise ImageRequestError(
            f"{name}: {form.name} has no quality setting; jpg, webp and avif have one"
        )
    return form


def check_size(name: str, suffix: str, height: int, width: int) -> None:
    """Check before anything is computed that a format can hold a result's size.

    Args:
        name: File name for messages.
        suffix: One of `FORMATS`.
        height: Of the result, pixels.
        width: Of the result, pixels.

    Raises:
        ImageError: The format's sides are too short.
    """
    form = FORMATS[suffix.lower()]
    if form.largest_side is not None and max(height, width) > form.largest_side:
        raise ImageError(
            f"{name}: the result would have {width}x{height} pixels, and {form.name} holds "
            f"{form.largest_side} a side; use PNG, or --max-size {form.largest_side}"
        )


def check_alpha(name: str, suffix: str, row_bands: RowBands) -> None:
    """Check before anything is computed that a format can hold alpha that is data.

    Args:
        name: File name for messages.
        suffix: One of `FORMATS`.
        row_bands: The result.

    Raises:
        ImageError: The format has no alpha, so the picture would be composited on white.
    """
    form = FORMATS[suffix.lower()]
    if row_bands.opacity and row_bands.separate_alpha and not form.alpha:
        raise ImageError(f"{name}: its alpha is data, and {form.name} holds none; use PNG")


def encode(picture: Picture, suffix: str, name: str, quality: int | None = None) -> bytes:
    """Encode a picture to bytes; see `write_encoded`.

    >>> encode(Picture(np.zeros((2, 3), np.uint8)), ".png", "a.png")[:4]
    b'\x89PNG'
    """
    stream = io.BytesIO()
    write_encoded(as_row_bands(picture), stream, suffix, name, quality)
    return stream.getvalue()


def write_encoded(
    row_bands: RowBands, stream: BinaryIO, suffix: str, name: str, quality: int | None = None
) -> None:
    """Write an image file.

    Args:
        row_bands: The picture; what the format can't hold is reduced.
        stream: Seekable, at its beginning.
        suffix: One of `FORMATS`.
        name: File name for messages.
        quality: 1 to 100; None means 95 for JPEG, 90 for AVIF, lossless for WebP.

    Raises:
        ImageError: The suffix is unknown, or the picture is larger than the format can hold.
        OSError: The stream can't be written.
    """
    form = check_format(name, suffix, quality)
    fitted = _fitted(row_bands, form, name)
    if form.name == "PNG":
        write_png(fitted, stream)
    elif form.name == "TIFF":
        from agsr.image.formats.tiff_writer import write_tiff  # slow to load, needed only here

        write_tiff(fitted, stream)
    else:
        _by_pillow(fitted, stream, form, quality, name)


def on_white(pixels: Pixels, alpha: Pixels) -> NDArray[np.uint8]:
    """Composite 8-bit pixels on white."""
    share = alpha.astype(np.float32) / 255
    if pixels.ndim == 3:
        share = share[..., None]
    return np.rint(pixels * share + 255 * (1 - share)).astype(np.uint8)


def _fitted(row_bands: RowBands, form: Format, name: str) -> RowBands:
    """Reduce a picture to what the format can hold, with warnings."""
    metadata = row_bands.metadata.for_size(row_bands.height, row_bands.width)
    if row_bands.dtype.itemsize > 1 and not form.deep:
        _log.warning("%s: 16 bits per channel become 8, the maximum of %s", name, form.name)
    if row_bands.opacity and not form.alpha:
        _log.warning("%s: composited on white, since %s has no alpha", name, form.name)
    if row_bands.channels == 1 and not form.grey:
        metadata = replace(metadata, icc=usable_profile(metadata.icc, 3, name))
    channels = row_bands.channels if form.grey else 3
    return row_bands.mapped(
        lambda band: _fitted_band(band, form),
        dtype=row_bands.dtype if form.deep else np.dtype(np.uint8),
        opacity=row_bands.opacity and form.alpha,
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
    row_bands: RowBands, stream: BinaryIO, form: Format, quality: int | None, name: str
) -> None:
    options = _pillow_metadata(row_bands.metadata, form)
    if form.name in ("JPEG", "AVIF"):
        options["subsampling"] = "4:4:4"  # colour as sharp as brightness
    if form.quality is not None:
        options["quality"] = form.quality if quality is None else quality
        options["lossless"] = quality is None  # WebP only, like the next
        options["exact"] = row_bands.separate_alpha  # otherwise colour under alpha 0 becomes black
    given = {key: value for key, value in options.items() if value is not None}
    image, changed = _in_pillow(row_bands), _changed_afterwards(row_bands.metadata, form)
    target = io.BytesIO() if changed else stream
    try:
        with decoding():
            image.save(target, form.name, **given)
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the file, not the encoder
            raise
        size = f"{row_bands.width}x{row_bands.height}"
        raise ImageError(f"{name}: can't encode {size} as {form.name}: {error}") from None
    if isinstance(target, io.BytesIO) and changed:
        stream.write(_with_changes(target.getbuffer(), row_bands.metadata, form))


def _pillow_metadata(metadata: Metadata, form: Format) -> dict[str, Any]:
    """Return Pillow's save options; None values are dropped."""
    exif, dpi = metadata.exif, metadata.dpi
    if not form.dpi and dpi is not None and form.profile:
        exif = with_density(parse_exif(exif or b""), dpi, INCH).to_bytes()
    if form.name == "AVIF" and exif is not None:  # otherwise Pillow writes the block again
        block = parse_exif(exif)
        block.main.pop(ORIENTATION, None)
        exif = None if block.empty else block.to_bytes()
    options = {"icc_profile": metadata.icc, "exif": exif, "dpi": dpi, "xmp": metadata.xmp}
    if form.name == "BMP" and dpi is None:
        options["dpi"] = 0, 0  # otherwise Pillow invents one
    if form.name == "JPEG":
        options["comment"] = metadata.text[0].text.encode() if metadata.text else None
        options["extra"] = jpeg_segment(metadata.iptc) if metadata.iptc else None
        if metadata.aspect is not None:
            options["dpi"] = whole_density(metadata.aspect)
    return options


def _changed_afterwards(metadata: Metadata, form: Format) -> bool:
    """Return True if the file needs a field that Pillow can't write."""
    aspect = form.name == "JPEG" and metadata.aspect is not None
    return aspect or (form.name == "AVIF" and metadata.colour is not None)


def _with_changes(content: memoryview, metadata: Metadata, form: Format) -> bytearray:
    changed = bytearray(content)
    if form.name == "JPEG" and changed[6:11] == b"JFIF\0":
        changed[13] = 0  # no unit: the densities are a ratio
    elif metadata.colour is not None and (codes := metadata.colour.code_points):
        place = place_of_codes(bytes(changed[:4096]))
        if place is not None:
            struct.pack_into(">HH", changed, place, *codes)
    return changed


def _in_pillow(row_bands: RowBands) -> Image.Image:
    """Paste all bands into one Pillow image, the only copy in memory."""
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[row_bands.samples]
    size = (row_bands.width, row_bands.height)
    image, top = Image.new(mode, size, None), 0  # None: not initialised
    for band in row_bands.bands:
        samples = samples_of(band)
        image.paste(
            Image.fromarray(samples[..., 0] if row_bands.samples == 1 else samples), (0, top)
        )
        top += len(samples)
    return image


def _to_uint8(pixels: Pixels) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8, copy=False)
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
