"""Tables of what becomes of all that a file says, from real files of every format to every other.

`test_metadata_tables` compares them with ``docs/metadata.md``;
``PYTHONPATH=tests python tests/helpers/metadata_tables.py``
writes them there. Sources are made by other libraries, or by the book.
"""

from __future__ import annotations

import io
import logging
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pillow_heif
import tifffile
from conftest import ROOT
from image_corpus import png
from PIL import Image, ImageCms

from agsr.image.decode import decode
from agsr.image.encode import FORMATS, encode
from agsr.image.picture import Picture

DOCUMENT = ROOT / "docs/metadata.md"
BEGIN, END = "<!-- tables: begin -->\n", "<!-- tables: end -->\n"
STILLS = ROOT / "tests/stills"
LOGGER = logging.getLogger("agsr")

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
IPTC = b"\x1c\x02\x19\x00\x06rocket"
RESOURCE = b"8BIM" + struct.pack(">HHI", 1028, 0, len(IPTC)) + IPTC + bytes(len(IPTC) % 2)
MAKER = "Jörg".encode()
WORDS = "a tree"
MARKED = np.arange(24 * 36 * 3, dtype=np.uint8).reshape(24, 36, 3) // 8


@cache
def _icc() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _exif(orientation: int | None = None) -> bytes:
    """A block with the maker in UTF-8, or with an orientation, by the book."""
    rows = [struct.pack("<HHII", 271, 2, len(MAKER) + 1, 26)]
    if orientation is not None:
        rows = [struct.pack("<HHIHH", 274, 3, 1, orientation, 0)]
    head = b"II*\0" + struct.pack("<IH", 8, len(rows))
    return b"Exif\0\0" + head + b"".join(rows) + bytes(4) + MAKER + b"\0"


def _png(*chunks: tuple[bytes, bytes], kind: int = 2, depth: int = 8) -> bytes:
    return png(kind, depth, False, *chunks)


def _raw_profile() -> bytes:
    text = f"\niptc\n{len(RESOURCE):8}\n{RESOURCE.hex()}\n".encode()
    return b"Raw profile type iptc\0\0" + zlib.compress(text)


def _tiff(samples: Any = MARKED, **options: Any) -> bytes:
    stream = io.BytesIO()
    kind = "rgb" if samples.ndim == 3 else "minisblack"
    tifffile.imwrite(
        stream,
        samples,
        photometric=kind,
        software=False,
        description=None,
        metadata=None,
        **options,
    )
    return stream.getvalue()


def _tag(number: int, kind: int, data: Any, count: int | None = None) -> dict[str, Any]:
    count = len(data) if count is None else count
    return {"extratags": [(number, kind, count, data, True)]}


def _saved(form: str, image: Image.Image | None = None, **options: Any) -> bytes:
    stream = io.BytesIO()
    (image or Image.fromarray(MARKED)).save(stream, form, **options)
    return stream.getvalue()


def _heic(image: Any = None, **options: Any) -> bytes:
    stream = io.BytesIO()
    pillow_heif.from_pillow(image or Image.fromarray(MARKED)).save(stream, **options)
    return stream.getvalue()


def _deep_heic() -> bytes:
    stream = io.BytesIO()
    samples = MARKED.astype(np.uint16) * 257
    pillow_heif.from_bytes("RGB;16", (36, 24), samples.tobytes()).save(stream, bit_depth=10)
    return stream.getvalue()


def _coded(content: bytes, primaries: int, transfer: int) -> bytes:
    """An AVIF file with other code points."""
    return content.replace(
        b"nclx\0\x01\0\x0d", b"nclx" + struct.pack(">HH", primaries, transfer), 1
    )


def _unitless_jpeg() -> bytes:
    content = bytearray(_saved("JPEG", dpi=(16, 15)))
    content[13] = 0  # of JFIF's segment: the densities have no unit
    return bytes(content)


def _alpha() -> Image.Image:
    image = Image.fromarray(MARKED)
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def _gif() -> Image.Image:
    image = Image.fromarray(MARKED).quantize(16)
    image.info["transparency"] = 3
    return image


_GREY = Image.fromarray(MARKED[..., 0].copy())
_APP13 = b"Photoshop 3.0\0" + RESOURCE
_P3 = [(0.68, 0.32), (0.265, 0.69), (0.15, 0.06)]
_SEGMENT = b"\xff\xed" + struct.pack(">H", len(_APP13) + 2) + _APP13

SOURCES: dict[str, dict[str, Callable[[], bytes]]] = {
    "PNG": {
        "16 bits": lambda: _png(depth=16),
        "grey": lambda: _png(kind=0),
        "alpha": lambda: _png(kind=6),
        "ICC profile": lambda: _png((b"iCCP", b"x\0\0" + zlib.compress(_icc()))),
        "P3": lambda: _png((b"cICP", bytes([12, 13, 0, 1]))),
        "PQ": lambda: _png((b"cICP", bytes([9, 16, 0, 1]))),
        "linear": lambda: _png((b"gAMA", struct.pack(">I", 100_000))),
        "EXIF": lambda: _png((b"eXIf", _exif()[6:])),
        "XMP": lambda: _png((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)),
        "IPTC": lambda: _png((b"zTXt", _raw_profile())),
        "text": lambda: _png((b"tEXt", b"parameters\0" + WORDS.encode())),
        "more text": lambda: _png((b"tEXt", b"workflow\0" + WORDS.encode())),
        "DPI": lambda: _png((b"pHYs", struct.pack(">IIB", 11811, 11811, 1))),
        "aspect": lambda: _png((b"pHYs", struct.pack(">IIB", 16, 15, 0))),
        "orientation": lambda: _png((b"eXIf", _exif(6)[6:])),
    },
    "TIFF": {
        "16 bits": lambda: _tiff(MARKED.astype(np.uint16) * 257),
        "grey": lambda: _tiff(MARKED[..., 0]),
        "alpha": lambda: _tiff(np.dstack([MARKED, MARKED[..., 0]]), extrasamples=["unassalpha"]),
        "ICC profile": lambda: _tiff(iccprofile=_icc()),
        "P3": lambda: _tiff(
            extratags=[
                (318, 11, 2, (0.3127, 0.329), True),
                (319, 11, 6, tuple(v for point in _P3 for v in point), True),
            ]
        ),
        "linear": lambda: _tiff(**_tag(301, 3, tuple(n * 257 for n in range(256)))),
        "EXIF": lambda: _tiff(**_tag(271, 2, MAKER + b"\0")),
        "XMP": lambda: _tiff(**_tag(700, 1, XMP)),
        "IPTC": lambda: _tiff(**_tag(33723, 7, IPTC)),
        "DPI": lambda: _tiff(resolution=(300, 300), resolutionunit=2),
        "aspect": lambda: _tiff(resolution=(16, 15), resolutionunit=1),
        "orientation": lambda: _tiff(**_tag(274, 3, 6, 1)),
    },
    "JPEG": {
        "grey": lambda: _saved("JPEG", _GREY),
        "ICC profile": lambda: _saved("JPEG", icc_profile=_icc()),
        "EXIF": lambda: _saved("JPEG", exif=_exif()),
        "XMP": lambda: _saved("JPEG", xmp=XMP),
        "IPTC": lambda: _saved("JPEG", extra=_SEGMENT),
        "text": lambda: _saved("JPEG", comment=WORDS),
        "DPI": lambda: _saved("JPEG", dpi=(300, 300)),
        "aspect": _unitless_jpeg,
        "orientation": lambda: _saved("JPEG", exif=_exif(6)),
        "gain map": lambda: (STILLS / "ultrahdr.jpg").read_bytes(),
    },
    "WebP": {
        "alpha": lambda: _saved("WEBP", _alpha(), lossless=True),
        "ICC profile": lambda: _saved("WEBP", icc_profile=_icc()),
        "EXIF": lambda: _saved("WEBP", exif=_exif()),
        "XMP": lambda: _saved("WEBP", xmp=XMP),
        "orientation": lambda: _saved("WEBP", exif=_exif(6)),
    },
    "AVIF": {
        "16 bits": lambda: (STILLS / "avif-pq10.avif").read_bytes(),
        "alpha": lambda: _saved("AVIF", _alpha()),
        "ICC profile": lambda: _saved("AVIF", icc_profile=_icc()),
        "P3": lambda: _coded(_saved("AVIF"), 12, 13),
        "PQ": lambda: _coded(_saved("AVIF"), 9, 16),
        "linear": lambda: _coded(_saved("AVIF"), 1, 8),
        "EXIF": lambda: _saved("AVIF", exif=_exif()),
        "XMP": lambda: _saved("AVIF", xmp=XMP),
        "orientation": lambda: _saved("AVIF", exif=_exif(6)),
    },
    "HEIC": {
        "16 bits": _deep_heic,
        "alpha": lambda: _heic(_alpha()),
        "ICC profile": lambda: _heic(icc_profile=_icc()),
        "P3": lambda: (STILLS / "heic-p3.heic").read_bytes(),
        "EXIF": lambda: _heic(exif=_exif()),
        "XMP": lambda: _heic(xmp=XMP),
        "orientation": lambda: _heic(exif=_exif(6)),
    },
    "GIF": {
        "alpha": lambda: _saved("GIF", _gif()),
        "text": lambda: _saved("GIF", comment=WORDS),
    },
    "BMP": {
        "grey": lambda: _saved("BMP", _GREY),
        "DPI": lambda: _saved("BMP", dpi=(300, 300)),
    },
    "TGA": {
        "grey": lambda: _saved("TGA", _GREY),
        "alpha": lambda: _saved("TGA", _alpha()),
    },
}
"""By source format and by what it says, a file that says this."""

COLUMNS = (
    *("16 bits", "grey", "alpha", "ICC profile", "P3", "PQ", "linear", "EXIF", "XMP", "IPTC"),
    *("text", "more text", "DPI", "aspect", "orientation", "gain map"),
)
TARGETS = {form.name: suffix for suffix, form in reversed(FORMATS.items())}
TARGETS = dict(reversed(TARGETS.items()))
"""An ending by the format's name."""


@dataclass
class Result:
    """A file that was read, written and read again."""

    source: Picture
    picture: Picture
    suffix: str
    warnings: list[str] = field(default_factory=list)

    def reported(self) -> str:
        """What a cell says of a loss; silence is a fault."""
        return "reported" if self.warnings else "SILENT"


def cell(source: str, column: str, target: str) -> str:
    """What becomes of one thing that a file of one format says, in a file of another."""
    make = SOURCES[source].get(column)
    if make is None:
        return "–"
    with collected() as warnings:
        name = f"a.{source.lower()}"
        picture = decode(_made(source, column), name)
        written = encode(picture, TARGETS[target], "b")
        found = decode(written, f"b{TARGETS[target]}")
    return _JUDGES[column](Result(picture, found, TARGETS[target], warnings))


@cache
def _made(source: str, column: str) -> bytes:
    return SOURCES[source][column]()


@contextmanager
def collected() -> Iterator[list[str]]:
    """Warnings that are logged meanwhile."""
    messages = list[str]()

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    handler, before = Collector(logging.WARNING), LOGGER.propagate
    LOGGER.addHandler(handler)
    LOGGER.propagate = False
    try:
        yield messages
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.propagate = before


def _depth(result: Result) -> str:
    assert result.source.pixels.dtype == np.uint16
    if result.picture.pixels.dtype == np.uint16:
        return "yes"
    return "→ 8 bits" if result.warnings else "SILENT"


def _grey(result: Result) -> str:
    assert result.source.pixels.ndim == 2
    return "yes" if result.picture.pixels.ndim == 2 else "→ RGB"


def _opacity(result: Result) -> str:
    assert result.source.alpha is not None
    if result.picture.alpha is not None:
        return "yes"
    return "→ on white" if result.warnings else "SILENT"


def _profile(result: Result) -> str:
    assert result.source.metadata.icc == _icc()
    return "yes" if result.picture.metadata.icc == _icc() else result.reported()


def _primaries(result: Result) -> str:
    return _meaning(result, (12, 13))


def _hdr(result: Result) -> str:
    assert result.source.metadata.colour.hdr == "PQ"
    return _meaning(result, (9, 16))


def _linear(result: Result) -> str:
    return _meaning(result, (1, 8))


def _meaning(result: Result, codes: tuple[int, int]) -> str:
    metadata = result.picture.metadata
    if metadata.colour is not None and metadata.colour == result.source.metadata.colour:
        return "yes"
    if metadata.colour is not None and metadata.colour.code_points == codes:
        return "→ code points" if metadata.colour.codes else "yes"
    if metadata.icc is not None:
        assert _shown(metadata.icc) == _expected(codes)
        return "→ ICC"
    return result.reported()


def _shown(icc: bytes) -> list[int]:
    """What littleCMS makes of three colours with a profile, in sRGB, roughly."""
    image = Image.fromarray(np.array([[[60, 90, 120], [128, 128, 128], [150, 120, 110]]], np.uint8))
    source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    srgb = ImageCms.createProfile("sRGB")
    return [int(v) // 8 for v in np.asarray(ImageCms.profileToProfile(image, source, srgb)).flat]


def _expected(codes: tuple[int, int]) -> list[int]:
    """The same by the definition of the colours."""
    values = np.array([[60, 90, 120], [128, 128, 128], [150, 120, 110]]) / 255
    light = values if codes[1] == 8 else _light(values)
    if codes[0] == 12:  # Display P3 to sRGB, both with D65
        light = (
            light
            @ np.array([[1.2249, -0.2247, 0], [-0.0420, 1.0419, 0], [-0.0197, -0.0786, 1.0979]]).T
        )
    low = light.clip(0, 1)
    back = np.where(low <= 0.0031308, 12.92 * low, 1.055 * low ** (1 / 2.4) - 0.055)
    return [int(v) // 8 for v in np.rint(back * 255).flat]


def _light(values: Any) -> Any:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _block(result: Result) -> str:
    assert result.source.metadata.exif
    assert MAKER in result.source.metadata.exif
    return "yes" if MAKER in (result.picture.metadata.exif or b"") else result.reported()


def _field(name: str, value: Any) -> Callable[[Result], str]:
    def judge(result: Result) -> str:
        assert getattr(result.source.metadata, name) == value
        same = getattr(result.picture.metadata, name) == value
        return "yes" if same else result.reported()

    return judge


def _text(result: Result) -> str:
    assert [text.text for text in result.source.metadata.text] == [WORDS]
    metadata = result.picture.metadata
    if metadata.text == result.source.metadata.text:
        return "yes"
    return "→ EXIF" if WORDS.encode() in (metadata.exif or b"") else result.reported()


def _dpi(result: Result) -> str:
    assert np.allclose(result.source.metadata.dpi or 0, 300, atol=0.1)
    if not np.allclose(result.picture.metadata.dpi or 0, 300, atol=0.1):
        return result.reported()
    return "yes" if FORMATS[result.suffix].dpi else "→ EXIF"


def _turned(result: Result) -> str:
    height, width = result.source.pixels.shape[:2]
    assert height > width
    assert result.picture.pixels.shape[:2] == (height, width)
    return "applied"


_JUDGES: dict[str, Callable[[Result], str]] = {
    "16 bits": _depth,
    "grey": _grey,
    "alpha": _opacity,
    "ICC profile": _profile,
    "P3": _primaries,
    "PQ": _hdr,
    "linear": _linear,
    "EXIF": _block,
    "XMP": _field("xmp", XMP),
    "IPTC": _field("iptc", IPTC),
    "text": _text,
    "more text": _text,
    "DPI": _dpi,
    "aspect": _field("aspect", (16.0, 15.0)),
    "orientation": _turned,
    "gain map": lambda result: result.reported(),
}


def table(source: str) -> str:
    """A table in Markdown: a row for each target, a column for each thing."""
    columns = [column for column in COLUMNS if column in SOURCES[source]]
    lines = [f"| from {source} to | " + " | ".join(columns) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for target in TARGETS:
        cells = [cell(source, column, target) for column in columns]
        lines.append(f"| {target} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the tables into the document."""
    text = DOCUMENT.read_text()
    head, rest = text.split(BEGIN)
    tables = "\n".join(table(source) for source in SOURCES)
    DOCUMENT.write_text(f"{head}{BEGIN}\n{tables}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
