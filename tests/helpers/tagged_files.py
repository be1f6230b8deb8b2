"""Small files of every format with all the metadata that Pillow can write into them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, PngImagePlugin
from PIL.ExifTags import IFD, Base

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'


UPRIGHT_XMP = XMP.replace(b'"6"', b'"1"')


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


GREY = SRGB[:16] + b"GRAY" + SRGB[20:]


TARGETS = [".png", ".tif", ".jpg", ".webp", ".avif"]


MARKED = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3) // 8


def make_exif(orientation: int = 6) -> Image.Exif:
    """Tags that stay, that have to change, and an orientation."""
    exif = Image.Exif()
    exif[Base.Orientation] = orientation
    exif[Base.Make] = "Maker"
    exif.get_ifd(IFD.Exif)[Base.DateTimeOriginal] = "2020:01:02 03:04:05"
    exif.get_ifd(IFD.Exif)[Base.ExifImageWidth] = 30
    exif.get_ifd(IFD.Exif)[Base.ExifImageHeight] = 20
    exif.get_ifd(IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    return exif


def tagged_file(suffix: str, exif: Image.Exif | None = None) -> bytes:
    """A file of 30x20 pixels at 240 by 120 dpi, made by Pillow, with all it can hold."""
    image, stream = Image.fromarray(MARKED), io.BytesIO()
    options: dict[str, Any] = {"exif": exif or make_exif(), "icc_profile": SRGB, "dpi": (240, 120)}
    if suffix == ".png":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.decode())
    elif suffix == ".tif":
        tags = exif or make_exif()
        tags[700] = XMP
        options["exif"] = tags.tobytes()
    else:
        options |= {"xmp": XMP, "quality": 95}
    image.save(stream, Image.registered_extensions()[suffix], **options)
    return stream.getvalue()
