"""Small image files of every format, depth, layout and kind of metadata, made here, each named.

`PNG` files are written by the book, the others by the libraries that can; nothing of them is ours
but what `agsr.image.encode` writes. They are the whole files of `test_damaged`, the seeds of
fuzzing and what `test_corpus` compares with another decoder.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from tagged_files import TARGETS as TAGGED
from tagged_files import tagged_file

from agsr.image.encode import FORMATS, encode
from agsr.image.picture import Picture

KINDS = [
    *((0, depth) for depth in (1, 2, 4, 8, 16)),  # grey
    *((2, depth) for depth in (8, 16)),  # RGB
    *((3, depth) for depth in (1, 2, 4, 8)),  # palette
    *((4, depth) for depth in (8, 16)),  # grey and alpha
    *((6, depth) for depth in (8, 16)),  # RGBA
]
"""Colour type and bit depth of every PNG there can be."""

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
ADAM7 = [
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
]
PALETTE: NDArray[np.uint8] = np.random.default_rng(1).integers(0, 256, (256, 3), dtype=np.uint8)
HEIGHT, WIDTH = 21, 18
UNREADABLE = ("float.tif",)
"""What is refused, with the reason."""


def whole_files() -> dict[str, bytes]:
    """All of them, by a name with their suffix."""
    files = {
        f"{kind}-{depth}{'-interlaced' * interlaced}.png": png(kind, depth, interlaced)
        for kind, depth in KINDS
        for interlaced in (False, True)
    }
    files |= {f"tagged{suffix}": tagged_file(suffix) for suffix in TAGGED}
    files |= ours() | jpegs() | tiffs() | webps() | bmps() | gifs()
    return files | tgas() | dds_files()


def samples_of(kind: int, depth: int) -> NDArray[np.uint16]:
    random = np.random.default_rng(depth)
    return random.integers(0, 1 << depth, (11, 13, CHANNELS[kind]), dtype=np.uint16)


def png(kind: int, depth: int, interlaced: bool, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG file of `samples_of`, written by the book, with extra chunks before the pixels."""
    samples = samples_of(kind, depth)
    parts = [samples[y::dy, x::dx] for y, x, dy, dx in ADAM7] if interlaced else [samples]
    rows = b"".join(_rows(part, depth) for part in parts if part.size)
    height, width = samples.shape[:2]
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced))]
    if kind == 3:
        chunks.append((b"PLTE", PALETTE[: 1 << depth].tobytes()))
    chunks += [*extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def _rows(samples: NDArray[np.uint16], depth: int) -> bytes:
    flat = samples.reshape(samples.shape[0], -1)
    if depth == 16:
        return b"".join(b"\0" + row.astype(">u2").tobytes() for row in flat)
    bits = (flat[..., None] >> np.arange(depth - 1, -1, -1, dtype=np.uint16)) & 1
    return b"".join(b"\0" + np.packbits(row.astype(np.uint8)).tobytes() for row in bits)


def ours() -> dict[str, bytes]:
    """What `agsr.image.encode` writes: every format, 8 and 16 bits, grey and colour, with alpha."""
    files = {}
    for suffix in FORMATS:
        for dtype, shape in ((np.uint8, (3,)), (np.uint16, (3,)), (np.uint8, ())):
            pixels, alpha = noise(*shape, dtype=dtype), noise(dtype=dtype)
            name = f"{dtype.__name__}-{len(shape)}{suffix}"
            files[f"ours-{name}"] = encode(Picture(pixels), suffix, "a")
            files[f"ours-alpha-{name}"] = encode(Picture(pixels, alpha), suffix, "a")
    return files


def noise(*channels: int, dtype: Any = np.uint8) -> Any:
    """``(H, W, ...)`` random samples, smooth enough for lossy formats."""
    random = np.random.default_rng(len(channels))
    coarse = random.integers(0, np.iinfo(dtype).max, (HEIGHT // 3, WIDTH // 3, *channels), dtype)
    return coarse.repeat(3, axis=0).repeat(3, axis=1)


def ramp(channels: int) -> NDArray[np.uint8]:
    """``(H, W, C)`` levels that rise slowly, those of any block on one line through all colours."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.uint8((3 * y + 5 * x)[..., None] * np.linspace(1.5, 0.5, channels))


def jpegs() -> dict[str, bytes]:
    """Baseline and progressive, grey, colour by each subsampling, CMYK, with restart markers."""
    colour = Image.fromarray(noise(3))
    variants: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "baseline": (colour, {"subsampling": "4:2:0"}),
        "422": (colour, {"subsampling": "4:2:2"}),
        "progressive": (colour, {"progressive": True, "subsampling": "4:4:4"}),
        "restarts": (colour, {"restart_marker_blocks": 1}),
        "rgb": (colour, {"keep_rgb": True}),
        "grey": (colour.convert("L"), {}),
        "grey-progressive": (colour.convert("L"), {"progressive": True}),
        "cmyk": (colour.convert("CMYK"), {}),
    }
    return {
        f"{name}.jpg": saved(image, "JPEG", quality=95, **options)
        for name, (image, options) in variants.items()
    }


def tiffs() -> dict[str, bytes]:
    """Strips and tiles, planes apart, both byte orders, BigTIFF, compressions, other meanings."""
    deep, colour, grey = noise(3, dtype=np.uint16), noise(3), noise()
    rgb: dict[str, Any] = {"photometric": "rgb"}
    grey_alpha: dict[str, Any] = {"photometric": "minisblack", "extrasamples": ["unassalpha"]}
    files = {
        "strips": _tiff(colour, rowsperstrip=4, **rgb),
        "tiles": _tiff(colour, tile=(16, 16), **rgb),
        "tiles-deep": _tiff(deep, tile=(16, 16), **rgb),
        "planes": _tiff(np.moveaxis(colour, 2, 0), planarconfig="separate", **rgb),
        "planes-deep": _tiff(np.moveaxis(deep, 2, 0), planarconfig="separate", **rgb),
        "grey-alpha-deep": _tiff(noise(2, dtype=np.uint16), **grey_alpha),
        "big-endian": _tiff(colour, order=">", **rgb),
        "big-endian-deep": _tiff(deep, order=">", **rgb),
        "bigtiff": _tiff(colour, big=True, **rgb),
        "bigtiff-deep": _tiff(deep, big=True, **rgb),
        "white-is-zero": _tiff(grey, photometric="miniswhite"),
        "white-is-zero-deep": _tiff(noise(dtype=np.uint16), photometric="miniswhite"),
        "deflate": _tiff(deep, compression="zlib", predictor=True, **rgb),
        "multiplied": _tiff(noise(4), extrasamples=["assocalpha"], **rgb),
        "multiplied-deep": _tiff(noise(4, dtype=np.uint16), extrasamples=["assocalpha"], **rgb),
        "unspecified": _tiff(noise(4), extrasamples=["unspecified"], **rgb),
        "float": _tiff(colour.astype(np.float32), **rgb),
        "pages": _tiff(np.stack([grey, grey]), photometric="minisblack"),
    }
    image = Image.fromarray(colour)
    for kind in ("tiff_lzw", "packbits", "jpeg", "tiff_adobe_deflate", "zstd", "lzma"):
        files[kind] = saved(image, "TIFF", compression=kind)
    files["group4"] = saved(image.convert("1"), "TIFF", compression="group4")
    for mode in ("1", "P", "CMYK", "LA"):
        files[mode] = saved(image.convert(mode), "TIFF")
    return {f"{name}.tif": content for name, content in files.items()}


def webps() -> dict[str, bytes]:
    """Lossy and lossless, with alpha, animated; and AVIF."""
    colour, clear = Image.fromarray(noise(3)), Image.fromarray(noise(4))
    return {
        "lossy.webp": saved(colour, "WEBP", quality=90),
        "lossless.webp": saved(colour, "WEBP", lossless=True),
        "clear-lossy.webp": saved(clear, "WEBP", quality=90),
        "clear-lossless.webp": saved(clear, "WEBP", lossless=True, exact=True),
        "moving.webp": _animated(colour, "WEBP", lossless=True),
        "lossy.avif": saved(colour, "AVIF", quality=90, subsampling="4:4:4"),
        "clear.avif": saved(clear, "AVIF", quality=90, subsampling="4:4:4"),
        "moving.avif": _animated(colour, "AVIF", quality=90, subsampling="4:4:4"),
    }


def bmps() -> dict[str, bytes]:
    """1, 8, 16, 24 and 32 bits, and run lengths."""
    image = Image.fromarray(noise(3))
    files = {f"{mode}.bmp": saved(image.convert(mode), "BMP") for mode in ("1", "L", "P", "RGB")}
    files["RGBA.bmp"] = saved(Image.fromarray(noise(4)), "BMP")
    files["runs.bmp"] = _bmp(8, 1, b"\x04\x01\x00\x00" * HEIGHT + b"\x00\x01", PALETTE.tobytes())
    files["five-bits.bmp"] = _bmp(16, 0, noise()[:, :4].astype("<u2").tobytes(), b"")
    return files


def gifs() -> dict[str, bytes]:
    """Plain, interlaced, with a transparent colour, animated."""
    image = Image.fromarray(noise(3)).quantize(16)
    return {
        "plain.gif": saved(image, "GIF", interlace=0),
        "interlaced.gif": saved(image, "GIF", interlace=1),
        "clear.gif": saved(image, "GIF", transparency=3),
        "moving.gif": _animated(image, "GIF"),
        "moving.png": _animated(image.convert("RGB"), "PNG"),
    }


def tgas() -> dict[str, bytes]:
    """Plain and by run lengths, from all four corners, with a palette, and of 16 bits."""
    colour = noise(3)
    files = {
        f"corner-{corner}.tga": targa(_from_corner(colour, corner), 2, 24, corner << 4)
        for corner in range(4)
    }
    files["plain.tga"] = targa(noise(4)[..., [2, 1, 0, 3]], 2, 32, 0x28)
    files["grey.tga"] = targa(noise(), 3, 8, 0x20)
    files["grey-alpha.tga"] = targa(noise(2), 3, 16, 0x28)
    files["runs.tga"] = saved(Image.fromarray(colour), "TGA", compression="tga_rle")
    files["palette.tga"] = saved(Image.fromarray(colour).quantize(256), "TGA")
    return files


def targa(samples: NDArray[np.uint8], kind: int, bits: int, descriptor: int) -> bytes:
    """A Targa file by the book, of samples in the order in which they are stored."""
    height, width = samples.shape[:2]
    head = struct.pack("<BBBHHBHHHHBB", 0, 0, kind, 0, 0, 0, 0, 0, width, height, bits, descriptor)
    return head + samples.tobytes()


def from_targa(content: bytes) -> NDArray[np.uint8]:
    """``(H, W, C)`` of a Targa file that is stored plainly, from the lower left corner."""
    _, _, _, _, _, _, _, _, width, height, bits, descriptor = struct.unpack(
        "<BBBHHBHHHHBB", content[:18]
    )
    assert not descriptor & 0x30
    count = height * width * bits // 8
    planes = np.frombuffer(content[18 : 18 + count], np.uint8).reshape(height, width, -1)[::-1]
    return planes if planes.shape[2] < 3 else planes[..., [2, 1, 0, *range(3, planes.shape[2])]]


def _from_corner(colour: NDArray[np.uint8], corner: int) -> NDArray[np.uint8]:
    """BGR, stored from the lower left, lower right, upper left or upper right corner."""
    stored = colour[..., ::-1]
    stored = stored[:, ::-1] if corner & 1 else stored
    return np.ascontiguousarray(stored if corner & 2 else stored[::-1])


def dds_files() -> dict[str, bytes]:
    """Plain, and by blocks."""
    plain = {"grey": noise(), "grey-alpha": noise(2), "colour": noise(3), "clear": noise(4)}
    files = {f"{name}.dds": saved(Image.fromarray(plain[name]), "DDS") for name in plain}
    for kind in ("DXT1", "DXT5", "BC3", "BC5"):
        image = Image.fromarray(ramp(3 if kind in ("DXT1", "BC5") else 4))
        files[f"{kind}.dds"] = saved(image, "DDS", pixel_format=kind)
    return files


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    """An image as Pillow writes it."""
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def _animated(image: Image.Image, form: str, **options: Any) -> bytes:
    second = Image.new(image.mode, image.size)
    return saved(image, form, save_all=True, append_images=[second], **options)


def _tiff(samples: Any, *, order: str = "<", big: bool = False, **options: Any) -> bytes:
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream, byteorder=order, bigtiff=big) as writer:  # type: ignore[arg-type]
        writer.write(samples, **options)
    return stream.getvalue()


def _bmp(bits: int, compression: int, pixels: bytes, colours: bytes) -> bytes:
    """A BMP of four columns: version 3 of its header."""
    table = b"".join(colours[i : i + 3][::-1] + b"\0" for i in range(0, len(colours), 3))
    start = 14 + 40 + len(table)
    sizes = (start + len(pixels), 0, start, 40, 4, HEIGHT, 1, bits, compression, len(pixels))
    return b"BM" + struct.pack("<IIIIiiHHII16x", *sizes) + table + pixels


def smooth(shape: tuple[int, ...], dtype: Any = np.uint8) -> Any:
    """Waves of a few pixels over a type's whole range, the same ones always."""
    noise = np.random.default_rng(0).random((*shape[:2], shape[2] if len(shape) > 2 else 1))
    wave = cv2.GaussianBlur(noise, (0, 0), 4).reshape(shape)
    scaled = (wave - wave.min()) / (wave.max() - wave.min()) * np.iinfo(dtype).max
    return scaled.astype(dtype)


FLIPS = 500


WHOLE = whole_files()


READABLE = [name for name in WHOLE if name not in UNREADABLE]


def truncated(content: bytes) -> list[bytes]:
    """A file cut at each sixteenth."""
    return [content[: len(content) * sixteenth // 16] for sixteenth in range(1, 16)]


def damaged() -> Iterator[bytes]:
    """Files of every kind, each with one to eight bits turned."""
    whole = list(WHOLE.values())
    random = np.random.default_rng(20)
    for number in range(FLIPS):
        content = bytearray(whole[number % len(whole)])
        for place in random.integers(0, len(content) * 8, random.integers(1, 9)):
            content[place // 8] ^= 1 << (place % 8)
        yield bytes(content)
