"""Convert between `Picture` and Pillow images.

Grey stays grey, alpha is separated, palettes and CMYK become RGB, and the orientation is applied.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np
from PIL import ExifTags, Image, ImageCms

from agsr.errors import ImageError
from agsr.image.metadata import Metadata, resolve_metadata, usable_profile
from agsr.image.metadata.collect import stored_metadata
from agsr.image.metadata.stored import COMMENT
from agsr.image.picture import Picture, samples_of

_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By EXIF orientation: the turn from stored to shown pixels."""

_OTHERWISE: Final = {
    "F": "np.asarray(image) / white makes an array in [0, 1]",
    "I": "if white is 65535: image.convert('I;16')",
    "HSV": "image.convert('RGB')",
}
"""Unsupported modes, and what to do about them."""

_KEYWORDS: Final = {COMMENT: "comment"}
_RESERVED: Final = frozenset(
    {"icc_profile", "exif", "parsed_exif", "xmp", "photoshop", "dpi", "aspect", "resolution"}
    | {"gamma", "chromaticity", "srgb", "transparency", "background", "interlace", "compression"}
    | {"jfif", "jfif_version", "jfif_unit", "jfif_density", "adobe", "adobe_transform", "mp"}
    | {"progression", "progressive", "mpoffset", "default_image", "duration", "loop", "bbox"}
    | {"disposal", "blend", "timestamp", "version", "extension", "lossless", "quality"}
)
"""Keys of Pillow's ``info`` that don't hold a PNG text."""

_OF_PIXELS: Final = ("interlace", "bbox")
_INTERLACED = 28
"""Offset in a PNG file of the interlace flag."""

_log = logging.getLogger(__name__)


def from_pillow(image: Image.Image, metadata: Metadata, name: str) -> Picture:
    """Return pixels and alpha of a loaded Pillow image of at most 8 bits per channel.

    Raises:
        ImageError: The mode has more bits or is unknown.
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
    """Return a Pillow image of mode L, LA, RGB, RGBA or I;16.

    Pillow has no mode for 16-bit colour or 16-bit alpha.
    """
    pixels = samples_of(picture)
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def upscale_pillow(image: Image.Image, upscale: Callable[[Picture], Picture]) -> Image.Image:
    """Upscale an image; the result is upright and has the image's metadata.

    Raises:
        ImageError: The mode has more than 8 bits per channel and is not I;16, or the
            image is empty.
    """
    if 0 in image.size:
        raise ImageError(f"image is {image.width}x{image.height}; expected at least one pixel")
    if image.format != "TIFF":
        _load(image)  # PNG metadata may follow the pixels
    metadata, orientation = resolve_metadata(
        stored_metadata(_metadata_copy(image)), image.size, "image"
    )
    if image.format == "TIFF":
        image.load()  # this applies the orientation
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    if isinstance(image.info.get("transparency"), str):  # a PNG text, not a colour
        image = image.copy()
        del image.info["transparency"]
    if orientation != 1:
        image = image.transpose(_UPRIGHT[orientation])
    picture = upscale(_from_image(image, metadata))
    result, resulting = to_pillow(picture), picture.metadata
    channels = 3 if picture.pixels.ndim == 3 else 1
    resized = resulting.for_size(*picture.pixels.shape[:2])
    result.info = _info(replace(resized, icc=usable_profile(resulting.icc, channels, "image")))
    return result


def _load(image: Image.Image) -> None:
    """Load an image, although some PNG texts overwrite Pillow's notes about the pixels."""
    texts = {key: image.info[key] for key in _OF_PIXELS if isinstance(image.info.get(key), str)}
    file, tiles = getattr(image, "fp", None), getattr(image, "tile", None)
    if not texts or not file or not tiles or image.format != "PNG":
        image.load()
        return
    place = file.tell()
    file.seek(_INTERLACED)
    image.info["interlace"] = file.read(1)[0]
    file.seek(place)
    if "bbox" in texts:
        image.tile = [tile._replace(extents=(0, 0, *image.size)) for tile in tiles]  # type: ignore[attr-defined]
    image.load()
    if "interlace" not in texts and not image.info["interlace"]:
        del image.info["interlace"]
    image.info.update(texts)


def _info(metadata: Metadata) -> dict[str | tuple[int, int], Any]:
    """Return metadata as Pillow's ``info``."""
    colour = metadata.colour
    found = {
        "icc_profile": metadata.icc,
        "exif": metadata.exif,
        "xmp": metadata.xmp,
        "dpi": metadata.dpi,
        "aspect": metadata.aspect,
        "gamma": colour.gamma if colour else None,
        "chromaticity": colour.chromaticities if colour else None,
        "srgb": colour.intent if colour else None,
        "photoshop": {1028: metadata.iptc} if metadata.iptc else None,
        **_texts(metadata),
    }
    return {key: value for key, value in found.items() if value is not None}


def _texts(metadata: Metadata) -> dict[str, str]:
    """Return texts by keyword, except reserved ones, which are reported."""
    texts = dict[str, str]()
    for text in metadata.text:
        if text.keyword in _RESERVED:
            _log.warning("image: its text '%s' has a reserved name and is ignored", text.keyword)
        else:
            texts[_KEYWORDS.get(text.keyword, text.keyword)] = text.text
    return texts


def _from_image(image: Image.Image, metadata: Metadata) -> Picture:
    if image.mode.startswith("I;16"):
        return Picture(np.asarray(image).astype(np.uint16), None, metadata)
    if image.mode in _OTHERWISE:
        raise ImageError(
            f"image: {image.mode} pixels; expected 8 bits per channel or I;16; "
            f"{_OTHERWISE[image.mode]}"
        )
    return from_pillow(image, metadata, "image")


def _metadata_copy(image: Image.Image) -> Image.Image:
    """Return a 1x1 image with the same metadata, because reading EXIF changes an image."""
    card = Image.new("L", (1, 1))
    card.format, card.info = image.format, dict(image.info)
    if (texts := getattr(image, "text", None)) is not None:
        card.text = texts  # type: ignore[attr-defined]  # as PNG files have it
    try:
        card.info["exif"] = _exif_bytes(image)
    except Exception:  # damaged, so unchanged by the program
        _log.debug("EXIF can't be read", exc_info=True)
    return card


def _exif_bytes(image: Image.Image) -> bytes | None:
    """Return the EXIF block as stored, unless it was changed; Pillow's rewrite loses characters."""
    exif, stored = image.getexif(), image.info.get("exif")
    written = exif.tobytes() if exif else None
    if not isinstance(stored, bytes):
        return written
    before = Image.Exif()
    before.load(stored)
    return stored if before.tobytes() == written else written


def _with_alpha(image: Image.Image, grey: bool) -> Image.Image:
    if grey:  # Pillow can't convert mode 1 to LA
        return image.convert("L" if image.mode == "1" else image.mode).convert("LA")
    return image.convert("RGBA")


def _converted(image: Image.Image, icc: bytes | None) -> Image.Image:
    """Convert CMYK or LAB to sRGB, using the profile if it is usable."""
    try:
        if image.mode == "LAB":
            source: Any = ImageCms.createProfile("LAB")
        else:
            source = ImageCms.ImageCmsProfile(io.BytesIO(icc or b""))
        srgb = ImageCms.createProfile("sRGB")
        done = ImageCms.profileToProfile(image, source, srgb, outputMode="RGB")
    except (OSError, ImageCms.PyCMSError):
        return image.convert("RGB")
    assert done is not None  # None only for in-place conversion
    return done
