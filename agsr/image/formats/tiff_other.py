"""Read TIFF files that Pillow and OpenCV don't support, with tifffile.

These have floating-point samples, 24, 32 or 64 bits, CMYK with alpha or 16 bits, or are big-endian
BigTIFF. A picture has at most 16 bits per channel; reductions are reported.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agsr.errors import ImageError
from agsr.image.formats.tiff_pages import Tiff
from agsr.image.high_bit_depth import warn_of_unused_range
from agsr.image.metadata import Metadata
from agsr.image.picture import Picture
from agsr.image.pillow_io import from_pillow
from agsr.system.text import first_line

Samples = NDArray[Any]
"""``(H, W, C)``."""

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_OFFSETS, _SAMPLES = 273, 277
_LENGTHS, _EXTRA, _KINDS, _SUBSAMPLING = 279, 338, 339, 530
_TILE_OFFSETS, _TILE_LENGTHS = 324, 325
_WHITE_IS_ZERO, _GREY, _RGB, _SEPARATED, _YCBCR = 0, 1, 2, 5, 6
_ASSOCIATED = 1
_UNSIGNED, _SIGNED, _FLOATS = (1, 4), (2,), (3,)
_JPEG: Final = (6, 7)
_MOST_SAMPLES = 6
_OVERSHOOT = 1e-3

_log = logging.getLogger(__name__)


def is_other(tiff: Tiff) -> bool:
    """Return True if a file requires this module."""
    bits = set(tiff.values(_BITS, (1,)))
    inks = tiff.values(_PHOTOMETRIC) == (_SEPARATED,)
    return (
        (tiff.big and tiff.order == ">")
        or not set(tiff.values(_KINDS, (1,))) <= set(_UNSIGNED)
        or not bits <= {1, 2, 4, 8, 12, 16}
        or (inks and (bits == {16} or tiff.values(_SAMPLES, (4,))[0] > 4))
    )


def has_coarse_colour(tiff: Tiff) -> bool:
    """Return True for subsampled chroma outside JPEG, which OpenCV decodes."""
    if tiff.values(_PHOTOMETRIC) != (_YCBCR,) or tiff.values(_COMPRESSION, (1,))[0] in _JPEG:
        return False
    return tiff.values(_SUBSAMPLING, (2, 2)) != (1, 1)


def unsupported(tiff: Tiff) -> str | None:
    """Describe the unsupported feature of a file; None if there is none."""
    bits, kinds = set(tiff.values(_BITS, (1,))), tiff.values(_KINDS, (1,))
    photometric = tiff.values(_PHOTOMETRIC, (_GREY,))[0]
    if kinds[0] in _SIGNED:
        return (
            f"signed {max(bits)}-bit samples; expected unsigned; convert the file so that black "
            "is 0 and white the largest value"
        )
    if kinds[0] not in _UNSIGNED + _FLOATS:
        return f"samples of type {kinds[0]}; expected unsigned integers or floats"
    if len(bits) > 1 or not bits <= {1, 2, 4, 8, 12, 16, 24, 32, 64}:
        return f"{sorted(bits)} bits per channel; expected 8, 16 or 32; magick in.tif out.png"
    if photometric not in (_WHITE_IS_ZERO, _GREY, _RGB, 3, _SEPARATED, _YCBCR, 8):
        return f"photometric interpretation {photometric}; expected grey, RGB or CMYK"
    if tiff.values(_SAMPLES, (1,))[0] > _MOST_SAMPLES:
        return f"{tiff.values(_SAMPLES)[0]} channels; expected at most {_MOST_SAMPLES}"
    return None


def read_other(tiff: Tiff, metadata: Metadata, name: str) -> Picture:
    """Decode a file for which `is_other` is true, without applying the orientation.

    Raises:
        ImageError: Samples or compression are not supported; the message names them.
        ValueError: Damaged or truncated.
    """
    if reason := unsupported(tiff):
        raise ImageError(f"{name}: a TIFF file with {reason}")
    _check_whole(tiff)
    samples = _read(tiff, name)
    photometric = tiff.values(_PHOTOMETRIC, (_GREY,))[0]
    colours = {_RGB: 3, _YCBCR: 3, _SEPARATED: 4}.get(photometric, 1)
    if photometric not in (_WHITE_IS_ZERO, _GREY, _RGB, _SEPARATED) or samples.shape[2] < colours:
        raise ImageError(
            f"{name}: a TIFF file of an unusual layout (photometric interpretation {photometric}, "
            f"{samples.shape[2]} channels); convert it: magick in.tif out.png"
        )
    if samples.dtype.kind == "u" and photometric in (_GREY, _RGB):
        warn_of_unused_range(samples[..., :colours], max(tiff.values(_BITS, (1,))), name)
    samples = _unsigned(samples[..., : colours + 1], tiff, name)
    colour, extra = samples[..., :colours], tiff.values(_EXTRA)
    alpha = samples[..., colours].copy() if samples.shape[2] > colours and extra else None
    if photometric == _SEPARATED:
        picture = _from_inks(colour, metadata, name)
        alpha = None if alpha is None else _eight(alpha)
        return Picture(picture.pixels, alpha, picture.metadata)
    if photometric == _WHITE_IS_ZERO:
        colour = np.iinfo(colour.dtype).max - colour
    if alpha is not None and extra[0] == _ASSOCIATED:
        colour = _divided(colour, alpha)
    pixels: Any = np.ascontiguousarray(colour if colours == 3 else colour[..., 0])
    return Picture(pixels, alpha, metadata)


def _check_whole(tiff: Tiff) -> None:
    """Reject truncated strips, for which tifffile would return zeros."""
    for offsets, lengths in ((_OFFSETS, _LENGTHS), (_TILE_OFFSETS, _TILE_LENGTHS)):
        places = zip(tiff.values(offsets), tiff.values(lengths), strict=False)
        if any(not start or start + size > len(tiff.content) for start, size in places):
            raise ValueError("strips lie beyond the end of the file")


def _read(tiff: Tiff, name: str) -> Samples:
    import tifffile  # slow to load, needed only here

    with _quiet(), tifffile.TiffFile(io.BytesIO(tiff.content)) as file:
        page = file.pages[0]
        axes = str(page.axes)  # before reading samples, which a depth multiplies
        if axes not in ("YX", "YXS", "SYX"):
            raise ImageError(f"{name}: a TIFF file of dimensions {axes}; expected one picture")
        try:
            samples: Samples = page.asarray(maxworkers=1)
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            kind = getattr(page.compression, "name", page.compression)
            raise ImageError(
                f"{name}: a TIFF file with {max(tiff.values(_BITS, (1,)))}-bit samples compressed "
                f"by {kind} ({first_line(error)}); write it again without compression: "
                "tiffcp -c none in.tif out.tif"
            ) from None
    if axes == "SYX":
        samples = np.moveaxis(samples, 0, 2)
    if samples.shape[:2] != (tiff.values(_HEIGHT)[0], tiff.values(_WIDTH)[0]):
        raise ValueError("decoded size differs from the file's directory")
    return samples[..., None] if samples.ndim == 2 else samples


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress tifffile's log messages about damage, which is reported here."""
    logger = logging.getLogger("tifffile")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _unsigned(samples: Samples, tiff: Tiff, name: str) -> Samples:
    """Convert samples to uint8 or uint16."""
    bits = max(tiff.values(_BITS, (1,)))
    if samples.dtype.kind == "f":
        return _of_floats(samples, bits, name)
    if bits > 16:
        _log.warning("%s: %d bits per channel are read as 16", name, bits)
        high = samples.astype(np.uint64) >> np.uint64(bits - 16)
        return np.asarray(high.astype(np.uint16))
    if bits in (8, 16):
        return samples.astype(np.uint8 if bits == 8 else np.uint16)
    white, dtype = (255, np.uint8) if bits < 8 else (65535, np.uint16)
    return np.asarray((samples.astype(np.uint32) * white // ((1 << bits) - 1)).astype(dtype))


def _of_floats(samples: Samples, bits: int, name: str) -> Samples:
    low, high = float(samples.min()), float(samples.max())  # NaN if any is
    if not -_OVERSHOOT <= low <= high <= 1 + _OVERSHOOT:
        raise ImageError(
            f"{name}: a TIFF file with floating-point samples from {low:.4g} to {high:.4g}; "
            "expected 0 to 1; tone-map it to 16-bit PNG or TIFF"
        )
    _log.warning("%s: floating-point samples of %d bits are read as integers of 16", name, bits)
    levels = samples.astype(np.float32).clip(0, 1) * np.float32(65535)
    return np.asarray(np.rint(levels).astype(np.uint16))


def _from_inks(inks: Samples, metadata: Metadata, name: str) -> Picture:
    """Convert CMYK to 8-bit sRGB."""
    if inks.dtype != np.uint8:
        _log.warning("%s: CMYK of 16 bits per channel is read as 8", name)
    return from_pillow(Image.fromarray(_eight(inks), mode="CMYK"), metadata, name)


def _eight(samples: Samples) -> NDArray[np.uint8]:
    if samples.dtype == np.uint8:
        return np.ascontiguousarray(samples)
    return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _divided(colour: Samples, alpha: Samples) -> Samples:
    """Divide premultiplied colour by alpha."""
    white = np.iinfo(colour.dtype).max
    share = np.maximum(alpha, 1)[..., None].astype(np.uint64)
    divided = colour.astype(np.uint64) * white // share
    return np.asarray(np.minimum(divided, white).astype(colour.dtype))
