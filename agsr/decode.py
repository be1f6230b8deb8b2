"""Bytes of an image file → `Picture`: real bit depth, grey as grey, alpha apart, upright.

Pillow opens every file and decodes up to 8 bits per channel; what has 16, it would reduce, so those
PNG and TIFF files are decoded by OpenCV, or with the help of `agsr.tiff_layouts`. The depth is what
the file's header says, never guessed.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from agsr.direct_draw import FORMAT as DIRECT_DRAW
from agsr.direct_draw import is_direct_draw, read_direct_draw
from agsr.errors import AgsrError, ImageError
from agsr.heif import ENDINGS as HEIF_ENDINGS
from agsr.heif import FORMAT as HEIF
from agsr.heif import is_heif, open_heif
from agsr.metadata import read_metadata, usable_profile
from agsr.picture import Picture, Pixels
from agsr.pillow import from_pillow
from agsr.targa import ENDING as TARGA_ENDING
from agsr.targa import FORMAT as TARGA
from agsr.targa import is_targa, read_targa
from agsr.unread import is_raw, what_it_is

_TOLD_BY_CONTENT: Final = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", DIRECT_DRAW)
FORMATS: Final = (*_TOLD_BY_CONTENT, TARGA)
"""What is read, by Pillow's names; JPEG includes MPO, the JPEG with extras of phones."""

READABLE: Final = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".tif", ".tiff", ".bmp", ".gif"}
    | {".avif", ".dds", TARGA_ENDING}
    | HEIF_ENDINGS
)
"""File name endings that are picked from folders. Those of HEIC need an extra, which is told."""

MAX_PIXELS: Final = 1 << 27
"""Larger inputs (134 megapixels) are refused where nothing else is asked for: four times as high
and as wide, they are more than 6 GB."""

_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLES = 258, 262, 277  # TIFF 6.0 tags
_PLANES, _EXTRA_SAMPLES = 284, 338
_TIFF = (b"II*\0", b"MM\0*", b"II+\0")
_WHITE_IS_ZERO, _RGB = 0, 2
_APART = 2
_UNSPECIFIED, _ASSOCIATED, _UNASSOCIATED = 0, 1, 2

_UPRIGHT: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}
"""By EXIF orientation: how stored rows and columns become those that are shown."""

_LEFT_OUT = "%s: has a channel of unknown meaning; it is left out"

_log = logging.getLogger(__name__)


def formats_of(name: str, content: bytes = b"") -> tuple[str, ...]:
    """Those of `FORMATS` that a file may have: nearly any bytes could be Targa."""
    return FORMATS if is_targa(name, content) else _TOLD_BY_CONTENT


def decode(
    content: bytes, name: str, max_pixels: int = MAX_PIXELS, *, unknown_as_alpha: bool = False
) -> Picture:
    """Decode the bytes of an image file; of several pictures, the first.

    Args:
        content: The whole file.
        name: Of the file, for messages.
        max_pixels: Files with more are refused before they are decoded.
        unknown_as_alpha: Take the channel of a TIFF file whose meaning it doesn't tell for alpha,
            as it is where painting programs save masks. Otherwise it is left out, which is told.

    Raises:
        ImageError: Not an image, damaged, truncated, too large, or of an unsupported pixel type.
        MissingDependencyError: It is HEIC, whose reader is not installed.
    """
    size = f"{len(content)} bytes"
    try:
        return _decode(content, name, max_pixels, unknown_as_alpha)
    except (AgsrError, MemoryError):
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit, which programs can lift
        raise ImageError(f"{name}: {error}") from None
    except UnidentifiedImageError:
        if known := what_it_is(content, name):
            raise ImageError(f"{name}: {known}") from None
        if content.startswith(_TIFF):
            raise ImageError(
                f"{name}: a TIFF file that is damaged or truncated ({size}), or not read; "
                "expected 8 or 16 bits per channel, grey or RGB, with or without alpha"
            ) from None
        raise ImageError(
            f"{name}: not an image, or truncated ({size}); expected 8 or 16 bits per channel in "
            f"one of {' '.join(_TOLD_BY_CONTENT)}, or {TARGA} named {TARGA_ENDING}"
        ) from None
    except Exception as error:  # damaged files make decoders raise nearly anything
        raise ImageError(f"{name}: damaged or truncated ({size})") from error


def _decode(content: bytes, name: str, max_pixels: int, unknown_as_alpha: bool) -> Picture:
    if is_raw(name):  # else its preview would be taken for it
        raise UnidentifiedImageError
    if is_direct_draw(content):
        check = partial(_check_size, name=name, max_pixels=max_pixels)
        return read_direct_draw(content, name, check)
    with _opened(content, name) as image:
        _check_size(image.size, name, max_pixels)
        _tell_what_is_left_out(image, name)
        if image.format == "PNG":
            image.load()  # its EXIF may follow the pixels
        metadata, orientation = read_metadata(image, name)
        if _is_deep(image, content, name):
            picture = Picture(*_decode_deep(image, content, name), metadata)
        elif image.format == TARGA:
            picture = read_targa(image, content, metadata, name)
        else:
            image.load()
            picture = from_pillow(image, metadata, name)
        if _more_channels(image)[:1] == (_UNSPECIFIED,):
            picture = _of_unknown_alpha(picture, content, name, unknown_as_alpha)
        return _upright(picture, 1 if _is_turned(image) else orientation, name)


def _of_unknown_alpha(picture: Picture, content: bytes, name: str, wanted: bool) -> Picture:
    """A TIFF picture with alpha of which the file doesn't tell that it is, or without it."""
    if not wanted:
        _log.warning(_LEFT_OUT, name)
        return replace(picture, alpha=None)
    if picture.alpha is not None:
        return picture
    from agsr.tiff_layouts import with_unknown_as_alpha  # slow to load, and needed here only

    with with_unknown_as_alpha(content) as image:
        return from_pillow(image, picture.metadata, name)


def _is_turned(image: Image.Image) -> bool:
    """Whether what decodes a file applies its orientation."""
    return image.format == HEIF or (image.format == "TIFF" and not _is_laid_out_otherwise(image))


def _opened(content: bytes, name: str) -> Image.Image:
    if is_heif(content):
        return open_heif(content, name)
    try:
        return Image.open(io.BytesIO(content), formats=formats_of(name, content))
    except UnidentifiedImageError:
        if not content.startswith(_TIFF):
            raise
        from agsr.tiff_layouts import open_for_tags  # slow to load, and needed here only

        return open_for_tags(content)


def _check_size(size: tuple[int, int], name: str, max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageError(
            f"{name}: {width}x{height} is {width * height} pixels, more than {max_pixels}; "
            f"if you trust the file: --max-pixels {width * height}"
        )


def _tell_what_is_left_out(image: Image.Image, name: str) -> None:
    count = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if count > 1:
        _log.warning("%s: holds %d pictures; only the first is taken", name, count)
    if _UNSPECIFIED in _more_channels(image)[1:]:
        _log.warning(_LEFT_OUT, name)


def _more_channels(image: Image.Image) -> tuple[int, ...]:
    """What a TIFF file says of its channels beside grey or RGB."""
    return _tags(image, _EXTRA_SAMPLES, ()) if image.format == "TIFF" else ()


def _is_deep(image: Image.Image, content: bytes, name: str) -> bool:
    """Whether the file has 16 bits per channel, by its header."""
    if image.format == "PNG":
        return content[24] == 16  # IHDR begins at byte 16: width, height, depth
    if image.format != "TIFF":
        return False
    depths = set(_tags(image, _BITS_PER_SAMPLE, (1,)))
    if not depths <= {1, 2, 4, 8} and depths != {16}:
        raise ImageError(f"{name}: {sorted(depths)} bits per channel; expected 8 or 16")
    return depths == {16}


def _decode_deep(image: Image.Image, content: bytes, name: str) -> tuple[Pixels, Pixels | None]:
    if image.format == "TIFF" and _tags(image, _PHOTOMETRIC)[0] > _RGB:
        raise ImageError(f"{name}: 16 bits, but neither grey nor RGB; convert it to RGB")
    if _is_laid_out_otherwise(image):
        from agsr.tiff_layouts import read_samples

        planes = read_samples(content, image.tag_v2)  # type: ignore[attr-defined]
        colours = 3 if _tags(image, _PHOTOMETRIC)[0] == _RGB else 1
        alpha = planes[..., colours].copy() if planes.shape[2] > colours else None
        pixels = planes[..., :3] if colours == 3 else planes[..., 0]
        return _tiff_meaning(image, np.ascontiguousarray(pixels), alpha)
    pixels, alpha = _by_opencv(image, content)
    return _tiff_meaning(image, pixels, alpha) if image.format == "TIFF" else (pixels, alpha)


def _is_laid_out_otherwise(image: Image.Image) -> bool:
    """Whether it is a 16-bit TIFF file that `agsr.tiff_layouts` has to read."""
    if image.format != "TIFF" or set(_tags(image, _BITS_PER_SAMPLE, (1,))) != {16}:
        return False
    apart, grey = _tags(image, _PLANES, 1) == (_APART,), _tags(image, _PHOTOMETRIC)[0] < _RGB
    return _tags(image, _SAMPLES, 1)[0] > 1 and (apart or grey)


def _by_opencv(
    image: Image.Image, content: bytes
) -> tuple[NDArray[np.uint16], NDArray[np.uint16] | None]:
    """Pixels and alpha of a 16-bit file."""
    import cv2  # slow to load, and needed here only

    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.dtype != np.uint16:
        raise ValueError("OpenCV can't decode it")
    planes = np.asarray(decoded, np.uint16).reshape(*decoded.shape[:2], -1)
    alpha = np.ascontiguousarray(planes[..., -1]) if planes.shape[2] in (2, 4) else None
    if planes.shape[2] < 3 or (image.format == "PNG" and content[25] in (0, 4)):
        pixels = np.ascontiguousarray(planes[..., 0])  # grey, of which OpenCV may have made three
        transparent = image.info.get("transparency")
        if alpha is None and isinstance(transparent, int):  # a level, which OpenCV does not know
            alpha = np.where(pixels == transparent, 0, 65535).astype(np.uint16)
    else:
        pixels = np.ascontiguousarray(planes[..., 2::-1])
    return pixels, alpha


def _tiff_meaning(
    image: Image.Image, pixels: NDArray[np.uint16], alpha: NDArray[np.uint16] | None
) -> tuple[Pixels, Pixels | None]:
    """What the samples of a 16-bit TIFF file mean, by its tags."""
    if _tags(image, _PHOTOMETRIC)[0] == _WHITE_IS_ZERO:
        pixels = np.uint16(65535) - pixels
    meaning = _tags(image, _EXTRA_SAMPLES, _UNASSOCIATED)[0]  # as in 8 bits, where none is told
    if alpha is None or meaning != _ASSOCIATED:
        return pixels, alpha
    share = alpha if pixels.ndim == 2 else alpha[..., None]
    colour = pixels.astype(np.uint64) * 65535 // np.maximum(share, 1)
    return np.minimum(colour, 65535).astype(np.uint16), alpha


def _tags(image: Image.Image, tag: int, default: Any = 0) -> tuple[int, ...]:
    value = image.tag_v2.get(tag, default)  # type: ignore[attr-defined]  # TIFF files have it
    return value if isinstance(value, tuple) else (value,)


def _upright(picture: Picture, orientation: int, name: str) -> Picture:
    turn = _UPRIGHT[orientation]
    pixels = np.ascontiguousarray(turn(picture.pixels))
    alpha = None if picture.alpha is None else np.ascontiguousarray(turn(picture.alpha))
    icc = usable_profile(picture.metadata.icc, 1 if pixels.ndim == 2 else 3, name)
    return Picture(pixels, alpha, replace(picture.metadata, icc=icc))
