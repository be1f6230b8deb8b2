"""Image files ↔ `Picture`: whole files, by `agsr.image.decode` and `agsr.image.encode`.

Files are read and written as bytes, so any path Python can open will do. Results appear under their
name only when complete.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agsr.errors import ImageError
from agsr.image.decode import MAX_PIXELS, decode
from agsr.image.encode import check_format, write_encoded
from agsr.image.picture import Picture, Stripes, in_stripes
from agsr.system.atomic_file import complete_file


def read_picture(
    path: str | Path, max_pixels: int = MAX_PIXELS, *, unknown_as_alpha: bool = False
) -> Picture:
    """Decode an image file by `agsr.image.decode.decode`; of several pictures in it, the first.

    Raises:
        ImageError: The file is missing, empty, truncated, not an image, has more than
            ``max_pixels``, or pixels of an unsupported type.
    """
    content = _read_bytes(Path(path))
    return decode(content, str(path), max_pixels, unknown_as_alpha=unknown_as_alpha)


def read_rgb(path: str | Path) -> NDArray[np.uint8]:
    """Decode an image file to RGB ``(H, W, 3)`` uint8, or grey ``(H, W)`` uint8; no alpha.

    Raises:
        ImageError: As `read_picture`, or the file has 16 bits per channel.
    """
    pixels = read_picture(path).pixels
    if pixels.dtype != np.uint8:
        raise ImageError(f"{path}: 16 bits per channel, expected 8")
    return pixels.astype(np.uint8, copy=False)


def write_picture(picture: Picture, path: str | Path, quality: int | None = None) -> None:
    """Encode a picture by the suffix of ``path``; a file of that name is replaced at the end only.

    Args:
        picture: What the format can't hold of it is reduced; see `agsr.image.encode`.
        path: The file.
        quality: 1 to 100, for JPEG, WebP and AVIF; None for 95, lossless and 90.

    Raises:
        ImageError: The suffix is unknown, or the file can't be written.
    """
    write_stripes(in_stripes(picture), Path(path), quality)


def write_stripes(stripes: Stripes, path: Path, quality: int | None = None) -> None:
    """`write_picture` for what is made band by band; PNG and TIFF are written meanwhile.

    The stripes are closed then, also where that fails.
    """
    check_format(str(path), path.suffix, quality)
    try:
        with (
            closing(stripes),
            complete_file(path) as temporary,
            temporary.open("wb") as stream,
        ):
            write_encoded(stripes, stream, path.suffix, str(path), quality)
    except OSError as error:
        raise ImageError(f"{path}: can't be written: {error.strerror}") from None


def _read_bytes(path: Path) -> bytes:
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "not a regular file"
        raise ImageError(f"{path}: {kind}; expected an image file, or '-' for stdin")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except OSError as error:
        raise ImageError(f"{path}: can't be read: {error.strerror}") from None
    if not content:
        raise ImageError(f"{path}: the file is empty (0 bytes)")
    return content
