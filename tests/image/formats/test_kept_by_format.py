"""What docs/infer.md says each format keeps, against files that are written and read again."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT
from image_corpus import smooth
from PIL import Image, ImageCms

from agsr.image.decode import decode
from agsr.image.encode import FORMATS, encode
from agsr.image.metadata import Metadata
from agsr.image.metadata.colour import Colour
from agsr.image.picture import Picture


def _profile(name: str) -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes()


def _exif() -> bytes:
    exif = Image.Exif()
    exif[271] = "Maker"
    return exif.tobytes()


_METADATA = Metadata(icc=_profile("sRGB"), exif=_exif(), xmp=b"<x/>", dpi=(300.0, 300.0))


def _again(picture: Picture, suffix: str) -> Picture:
    return decode(encode(picture, suffix, f"a{suffix}"), f"a{suffix}")


def _depth(suffix: str) -> str:
    found = _again(Picture(smooth((20, 24, 3), np.uint16)), suffix).pixels.dtype
    return "yes" if found == np.uint16 else "→ 8 bits"


def _grey(suffix: str) -> str:
    return "yes" if _again(Picture(smooth((20, 24))), suffix).pixels.ndim == 2 else "→ RGB"


def _alpha(suffix: str) -> str:
    alpha = np.full((32, 32), 255, np.uint8)
    alpha[:, :16] = 0
    found = _again(Picture(np.zeros((32, 32, 3), np.uint8), alpha), suffix)
    if found.alpha is not None:
        return "yes" if np.abs(found.alpha.astype(int) - alpha).max() <= 2 else "lost"
    assert found.pixels[:, :8].min() >= 250
    return "→ on white"


def _colours(suffix: str) -> str:
    """Whether a profile is kept, and code points are, or become a profile."""
    if _again(Picture(smooth((20, 24, 3)), None, _METADATA), suffix).metadata.icc != _METADATA.icc:
        return "no"
    coded = Metadata(colour=Colour(codes=(12, 13)))
    found = _again(Picture(smooth((20, 24, 3)), None, coded), suffix).metadata
    if found.colour is not None:
        assert found.colour.codes == (12, 13)
        return "yes"
    return "ICC" if found.icc is not None else "no"


def _exif_xmp(suffix: str) -> str:
    metadata = _again(Picture(smooth((20, 24, 3)), None, _METADATA), suffix).metadata
    kept = (metadata.exif is not None and b"Maker" in metadata.exif, metadata.xmp == _METADATA.xmp)
    assert kept[0] == kept[1]
    large = replace(_METADATA, xmp=b"<x>" + b" " * (1 << 17) + b"</x>")
    all_of_it = _again(Picture(smooth((20, 24, 3)), None, large), suffix).metadata.xmp == large.xmp
    return ("yes" if all_of_it else "yes¹") if kept[0] else "no"


def _iptc(suffix: str) -> str:
    metadata = Metadata(iptc=b"\x1c\x02\x19\x00\x06rocket")
    found = _again(Picture(smooth((20, 24, 3)), None, metadata), suffix).metadata.iptc
    return "yes" if found == metadata.iptc else "no"


def _dpi(suffix: str) -> str:
    picture = Picture(smooth((20, 24, 3)), None, Metadata(dpi=(300.0, 300.0)))
    content = encode(picture, suffix, "a")
    found = decode(content, f"a{suffix}").metadata.dpi
    if found is None or not np.allclose(found, 300, atol=0.1):
        return "no"
    with Image.open(io.BytesIO(content)) as image:
        return "yes" if "dpi" in image.info else "in EXIF"


_COLUMNS = {
    "16 bits": _depth,
    "grey": _grey,
    "alpha": _alpha,
    "colours": _colours,
    "EXIF, XMP": _exif_xmp,
    "IPTC": _iptc,
    "DPI": _dpi,
}


def _rows() -> list[list[str]]:
    document = (ROOT / "docs" / "infer.md").read_text()
    text = document.partition("In short:\n\n")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]


def _suffix(name: str) -> str:
    return {"TIFF": ".tif", "JPEG": ".jpg"}.get(name, f".{name.lower()}")


def test_the_table_names_every_format_and_what_is_looked_at() -> None:
    head, _, *rows = _rows()
    assert head[1:] == list(_COLUMNS)
    named = {FORMATS[_suffix(row[0].split()[0])].name for row in rows}
    assert named == {form.name for form in FORMATS.values()}


@pytest.mark.parametrize("row", _rows()[2:], ids=lambda row: row[0].split()[0])
def test_what_the_table_says_is_kept_is_kept(row: list[str]) -> None:
    suffix = _suffix(row[0].split()[0])
    assert row[1:] == [find(suffix) for find in _COLUMNS.values()]


@pytest.mark.parametrize("row", _rows()[2:], ids=lambda row: row[0].split()[0])
def test_the_quality_in_the_table_is_the_default(row: list[str]) -> None:
    picture, suffix = Picture(smooth((20, 24, 3))), _suffix(row[0].split()[0])
    usual = encode(picture, suffix, "a")
    if "(quality " in row[0]:
        quality = int(row[0].partition("(quality ")[2].removesuffix(")"))
        assert usual == encode(picture, suffix, "a", quality)
        assert usual != encode(picture, suffix, "a", quality - 1)
    else:
        assert np.array_equal(decode(usual, f"a{suffix}").pixels, picture.pixels)
