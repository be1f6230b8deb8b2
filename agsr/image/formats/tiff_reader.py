"""Read TIFF files, selecting a decoder by layout and depth.

Pillow decodes 8 bits per channel, OpenCV 16 bits and subsampled chroma; other layouts go
to `agsr.image.formats.tiff_layouts` or `agsr.image.formats.tiff_other`.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from agsr.errors import ImageError
from agsr.image.formats.ccitt import count_cut_pieces
from agsr.image.formats.tiff_other import has_coarse_colour, is_other, read_other, unsupported
from agsr.image.formats.tiff_pages import Tiff, check_pieces, stored_metadata_of_tiff
from agsr.image.high_bit_depth import decode_by_opencv, scale_to_16_bits, warn_of_unused_range
from agsr.image.metadata import Metadata, resolve_metadata
from agsr.image.picture import Picture, Pixels
from agsr.image.pillow_io import from_pillow

_WIDTH, _HEIGHT, _BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLES = 256, 257, 258, 262, 277  # TIFF 6.0 tags
_PLANES, _EXTRA_SAMPLES = 284, 338
_WHITE_IS_ZERO, _RGB = 0, 2
_APART = 2
_UNSPECIFIED, _ASSOCIATED, _UNASSOCIATED = 0, 1, 2


_CUT = "%s: %d of %d strips or tiles lack the end of their fax data; missing rows are white"
_DROPPED = "%s: has a channel of unknown meaning; it is dropped"

_log = logging.getLogger(__name__)


def read_tiff(
    tiff: Tiff, name: str, check: Callable[[tuple[int, int]], None], unknown_as_alpha: bool
) -> tuple[Picture, int]:
    """Decode the main picture of a file.

    Args:
        tiff: The file.
        name: File name for messages.
        check: Called with width and height before pixels are decoded.
        unknown_as_alpha: See `agsr.image.decode.decode`.

    Returns:
        The picture, and the orientation still to be applied.

    Raises:
        ImageError: Unsupported pixel type.
        ValueError: Damaged or truncated.
    """
    size = (tiff.values(_WIDTH, (0,))[0], tiff.values(_HEIGHT, (0,))[0])
    if min(size) < 1:
        raise UnidentifiedImageError
    check(size)
    check_pieces(tiff)
    cut, count = count_cut_pieces(tiff)
    if cut:
        _log.warning(_CUT, name, cut, count)
    extra = tiff.values(_EXTRA_SAMPLES)
    if _UNSPECIFIED in extra[1:]:
        _log.warning(_DROPPED, name)
    metadata, orientation = resolve_metadata(stored_metadata_of_tiff(tiff), size, name)
    picture, turned = _tiff_pixels(tiff, metadata, name)
    if extra[:1] == (_UNSPECIFIED,):
        picture = _of_unknown_alpha(picture, tiff, name, unknown_as_alpha)
    return picture, 1 if turned else orientation


def _tiff_pixels(tiff: Tiff, metadata: Metadata, name: str) -> tuple[Picture, bool]:
    """Decode the page; return it, and whether the decoder applied the orientation."""
    if is_other(tiff):
        return read_other(tiff, metadata, name), False
    content = tiff.content
    if reason := unsupported(tiff):
        raise ImageError(f"{name}: a TIFF file with {reason}")
    with _opened(content) as image:
        if _is_deep(image, name):
            picture = Picture(*_decode_deep(image, content, name), metadata)
            warn_of_unused_range(picture.pixels, 16, name)
            return picture, not _is_laid_out_otherwise(image)
        if has_coarse_colour(tiff):
            return Picture(*decode_by_opencv(image, content, np.uint8), metadata), True
        image.load()
        return from_pillow(image, metadata, name), True


def _of_unknown_alpha(picture: Picture, tiff: Tiff, name: str, wanted: bool) -> Picture:
    """Include or drop a channel of unspecified meaning as alpha."""
    if not wanted:
        _log.warning(_DROPPED, name)
        return replace(picture, alpha=None)
    if picture.alpha is not None:
        return picture
    from agsr.image.formats.tiff_layouts import (
        with_unknown_as_alpha,  # slow to load, and needed here only
    )

    with with_unknown_as_alpha(tiff.content) as image:
        return from_pillow(image, picture.metadata, name)


def _opened(content: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content), formats=["TIFF"])
    except UnidentifiedImageError:
        from agsr.image.formats.tiff_layouts import (
            open_for_tags,  # slow to load, and needed here only
        )

        return open_for_tags(content)


def _is_deep(image: Image.Image, name: str) -> bool:
    """Return True if the header declares 12 or 16 bits per channel."""
    depths = set(_tags(image, _BITS_PER_SAMPLE, (1,)))
    if not depths <= {1, 2, 4, 8} and depths not in ({12}, {16}):
        raise ImageError(f"{name}: {sorted(depths)} bits per channel; expected 8 or 16")
    return depths in ({12}, {16})


def _decode_deep(image: Image.Image, content: bytes, name: str) -> tuple[Pixels, Pixels | None]:
    if _tags(image, _PHOTOMETRIC)[0] > _RGB:
        raise ImageError(f"{name}: 16 bits, but neither grey nor RGB; convert it to RGB")
    if _is_laid_out_otherwise(image):
        from agsr.image.formats.tiff_layouts import read_samples

        planes = read_samples(content, image.tag_v2)  # type: ignore[attr-defined]
        colours = 3 if _tags(image, _PHOTOMETRIC)[0] == _RGB else 1
        alpha = planes[..., colours].copy() if planes.shape[2] > colours else None
        pixels = planes[..., :3] if colours == 3 else planes[..., 0]
        return _tiff_meaning(image, np.ascontiguousarray(pixels), alpha)
    if set(_tags(image, _BITS_PER_SAMPLE)) == {12}:
        return _tiff_meaning(image, scale_to_16_bits(_grey_of_12_bits(image, name), 12), None)
    return _tiff_meaning(image, *decode_by_opencv(image, content))


def _grey_of_12_bits(image: Image.Image, name: str) -> NDArray[Any]:
    if image.mode != "I;16":
        raise ImageError(
            f"{name}: 12 bits per channel, in colour or compressed; expected 8 or 16; convert it: "
            "magick in.tif -depth 16 out.png"
        )
    turned: Any = np.asarray(image)
    return np.asarray(turned)


def _is_laid_out_otherwise(image: Image.Image) -> bool:
    """Return True for a 16-bit layout that requires `agsr.image.formats.tiff_layouts`."""
    if image.format != "TIFF" or set(_tags(image, _BITS_PER_SAMPLE, (1,))) != {16}:
        return False
    apart, grey = _tags(image, _PLANES, 1) == (_APART,), _tags(image, _PHOTOMETRIC)[0] < _RGB
    return _tags(image, _SAMPLES, 1)[0] > 1 and (apart or grey)


def _tiff_meaning(
    image: Image.Image, pixels: NDArray[np.uint16], alpha: NDArray[np.uint16] | None
) -> tuple[Pixels, Pixels | None]:
    """Apply photometric interpretation and associated alpha to 16-bit samples."""
    if _tags(image, _PHOTOMETRIC)[0] == _WHITE_IS_ZERO:
        pixels = np.uint16(65535) - pixels
    meaning = _tags(image, _EXTRA_SAMPLES, _UNASSOCIATED)[0]  # as for 8 bits, if unspecified
    if alpha is None or meaning != _ASSOCIATED:
        return pixels, alpha
    share = alpha if pixels.ndim == 2 else alpha[..., None]
    colour = pixels.astype(np.uint64) * 65535 // np.maximum(share, 1)
    return np.minimum(colour, 65535).astype(np.uint16), alpha


def _tags(image: Image.Image, tag: int, default: Any = 0) -> tuple[int, ...]:
    value = image.tag_v2.get(tag, default)  # type: ignore[attr-defined]  # only TIFF files have it
    return value if isinstance(value, tuple) else (value,)
