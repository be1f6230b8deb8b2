"""Image files ↔ arrays, by OpenCV: real bit depth, alpha, grey and the ICC profile survive.

Every array is RGB, ``(H, W, 3)``, or grey, ``(H, W)``, uint8 or uint16. Files are read and written
as bytes, so any path Python can open will do; results appear under their name only when complete.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from agsr.atomic import complete_file
from agsr.errors import ImageError

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
"""``(H, W, 3)`` RGB or ``(H, W)`` grey."""

WRITABLE = {
    ".png": np.uint16,
    ".tif": np.uint16,
    ".tiff": np.uint16,
    ".jpg": np.uint8,
    ".jpeg": np.uint8,
    ".webp": np.uint8,
    ".bmp": np.uint8,
}
"""File name endings that can be written, with the deepest pixels each can hold."""

_TIFF = frozenset({".tif", ".tiff"})
_OPAQUE = frozenset({".jpg", ".jpeg", ".bmp"})
_JPEG = b"\xff\xd8"
_QUALITY = {
    ".jpg": (cv2.IMWRITE_JPEG_QUALITY, 95),
    ".jpeg": (cv2.IMWRITE_JPEG_QUALITY, 95),
    ".webp": (cv2.IMWRITE_WEBP_QUALITY, 101),  # above 100: lossless
}
_PROFILED = frozenset({".png", ".jpg", ".jpeg", ".webp"})


@dataclass(frozen=True)
class Picture:
    """A decoded image file."""

    pixels: Pixels
    """RGB ``(H, W, 3)`` or grey ``(H, W)``, uint8 or uint16."""
    alpha: Pixels | None = None
    """Opacity ``(H, W)`` in the same type, where the file has it."""
    icc: bytes | None = None
    """ICC profile of the pixels, where the file has one."""


def read_picture(path: Path) -> Picture:
    """Decode an image file; EXIF orientation of JPEG files is applied.

    Raises:
        ImageError: The file is missing, empty, truncated, not an image, or of an odd pixel type.
    """
    content = _read_bytes(path)
    # A JPEG has no alpha, and only the modes without alpha turn the image as its EXIF says.
    jpeg = content.startswith(_JPEG)
    mode = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH if jpeg else cv2.IMREAD_UNCHANGED
    try:
        decoded, kinds, chunks = cv2.imdecodeWithMetadata(
            np.frombuffer(content, np.uint8), flags=mode
        )
    except cv2.error:
        decoded = None
    if decoded is None:
        raise ImageError(f"{path}: not an image, or truncated ({len(content)} bytes)")
    metadata = dict(zip(map(int, kinds), chunks, strict=True))
    icc = metadata.get(cv2.IMAGE_METADATA_ICCP)
    return _picture(path, np.asarray(decoded), None if icc is None else np.asarray(icc).tobytes())


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Decode an image file to RGB ``(H, W, 3)`` uint8, or grey ``(H, W)`` uint8; no alpha.

    Raises:
        ImageError: As `read_picture`, or the file has 16 bits per channel.
    """
    pixels = read_picture(path).pixels
    if pixels.dtype != np.uint8:
        raise ImageError(f"{path}: 16 bits per channel, expected 8")
    return pixels.astype(np.uint8, copy=False)


def write_picture(picture: Picture, path: Path) -> None:
    """Encode a picture by the suffix of ``path``; a file of that name is replaced at the end only.

    Formats that can't hold 16 bits or alpha get 8 bits, or the picture on white.

    Raises:
        ImageError: The suffix is unknown, or the file can't be written.
    """
    suffix = path.suffix.lower()
    deepest = check_writable(path)
    pixels, alpha = picture.pixels, picture.alpha
    if deepest == np.uint8:
        pixels, alpha = _to_uint8(pixels), None if alpha is None else _to_uint8(alpha)
    if alpha is not None and suffix in _OPAQUE:
        pixels, alpha = _on_white(pixels, alpha), None
    array = _to_bgr(pixels, alpha)
    if suffix == ".webp" and array.ndim == 2:  # WebP knows no grey
        array = np.repeat(array[..., None], 3, axis=2)
    icc = picture.icc if suffix in _PROFILED else None
    if icc is not None and not _describes(icc, 1 if array.ndim == 2 else 3):
        icc = None
    encoded = _encode(suffix, array, icc)
    if encoded is None:
        raise ImageError(f"{path}: OpenCV can't encode {array.dtype} {array.shape} as {suffix}")
    try:
        with complete_file(path) as temporary:
            temporary.write_bytes(encoded)
    except OSError as error:
        raise ImageError(f"{path}: can't be written: {error.strerror}") from None


def check_writable(path: Path) -> type[np.unsignedinteger[Any]]:
    """The deepest pixel type the format of ``path`` can hold.

    Raises:
        ImageError: The suffix is not one of `WRITABLE`.
    """
    if path.suffix.lower() not in WRITABLE:
        raise ImageError(
            f"{path}: can't write {path.suffix or 'a file without suffix'}; "
            f"expected one of {' '.join(WRITABLE)}"
        )
    return WRITABLE[path.suffix.lower()]


@contextmanager
def quiet_decoders() -> Iterator[None]:
    """Silence what image libraries print to the process's stderr by themselves.

    For programs that own their process and report errors themselves, such as the command line.
    """
    saved = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as sink:
            os.dup2(sink.fileno(), 2)
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _picture(path: Path, decoded: NDArray[Any], icc: bytes | None) -> Picture:
    if decoded.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{path}: {decoded.dtype} pixels; expected 8 or 16 bits per channel")
    channels = 1 if decoded.ndim == 2 else decoded.shape[2]
    icc = icc if icc is not None and _describes(icc, channels) else None
    if channels == 1:
        return Picture(decoded.reshape(decoded.shape[:2]), None, icc)
    if channels == 3:
        return Picture(np.ascontiguousarray(decoded[..., ::-1]), None, icc)
    if channels == 4 and decoded.dtype == np.uint8 and path.suffix.lower() in _TIFF:
        # OpenCV may have multiplied the colour by alpha, and can't say whether.
        raise ImageError(f"{path}: 8-bit TIFF with four channels is not supported; use PNG")
    if channels == 4:
        return Picture(np.ascontiguousarray(decoded[..., 2::-1]), decoded[..., 3].copy(), icc)
    raise ImageError(f"{path}: {channels} channels; expected grey, RGB or RGBA")


def _describes(icc: bytes, channels: int) -> bool:
    """Whether a profile's colour space (ICC.1:2022, header bytes 16-19) is that of the pixels."""
    return icc[16:20] == (b"GRAY" if channels == 1 else b"RGB ")


def _to_uint8(pixels: Pixels) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8, copy=False)
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _on_white(pixels: Pixels, alpha: Pixels) -> NDArray[np.uint8]:
    share = alpha.astype(np.float32) / 255
    if pixels.ndim == 3:
        share = share[..., None]
    return np.rint(pixels * share + 255 * (1 - share)).astype(np.uint8)


def _to_bgr(pixels: Pixels, alpha: Pixels | None) -> NDArray[Any]:
    if alpha is None:
        return pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., ::-1])
    colour = pixels[..., ::-1] if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
    return np.concatenate([colour, alpha[..., None]], axis=2)


def _encode(suffix: str, array: NDArray[Any], icc: bytes | None) -> bytes | None:
    """The encoded file, or None if OpenCV refuses; a profile that it refuses is left out."""
    options = list(_QUALITY.get(suffix, ()))
    try:
        if icc is None:
            done, encoded = cv2.imencode(suffix, array, options)
        else:
            profile = np.frombuffer(icc, np.uint8)
            done, encoded = cv2.imencodeWithMetadata(
                suffix, array, [cv2.IMAGE_METADATA_ICCP], [profile], options
            )
    except cv2.error:
        done = False
    if done:
        return bytes(encoded.tobytes())
    return None if icc is None else _encode(suffix, array, None)


def _read_bytes(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except OSError as error:
        raise ImageError(f"{path}: can't be read: {error.strerror}") from None
    if not content:
        raise ImageError(f"{path}: the file is empty (0 bytes)")
    return content
