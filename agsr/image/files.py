"""Read and write whole image files as `Picture`.

Bytes go through `agsr.image.decode` and `agsr.image.encode`, so any path Python can open works.
A written file appears under its name only when it is complete.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agsr.errors import ImageError
from agsr.image.decode import MAX_PIXELS, decode
from agsr.image.encode import check_format, write_encoded
from agsr.image.picture import Picture, RowBands, as_row_bands
from agsr.store.address import Location
from agsr.store.locations import complete, read_bytes


def read_picture(
    path: str | Location, max_pixels: int = MAX_PIXELS, *, unknown_as_alpha: bool = False
) -> Picture:
    """Decode an image file; only its first frame or page is used.

    Args:
        path: The file; a server's as `Address`, never as text.
        max_pixels: Larger files are rejected before they are decoded.
        unknown_as_alpha: Treat an unspecified extra TIFF channel as alpha; see
            `agsr.image.decode.decode`.

    Raises:
        ImageError: The file is missing, empty, truncated, not an image, larger than
            ``max_pixels``, or of an unsupported pixel type.

    >>> picture = read_picture("photo.png")  # doctest: +SKIP
    >>> picture.pixels.shape, picture.pixels.dtype  # doctest: +SKIP
    ((512, 768, 3), dtype('uint8'))
    """
    content = _read_bytes(Path(path) if isinstance(path, str) else path)
    return decode(content, str(path), max_pixels, unknown_as_alpha=unknown_as_alpha)


def read_rgb(path: str | Path) -> NDArray[np.uint8]:
    """Decode an image file to uint8 RGB ``(H, W, 3)`` or grey ``(H, W)``, without alpha.

    Raises:
        ImageError: As for `read_picture`, or the file has 16 bits per channel.

    >>> read_rgb("photo.png").shape  # doctest: +SKIP
    (512, 768, 3)
    """
    pixels = read_picture(path).pixels
    if pixels.dtype != np.uint8:
        raise ImageError(f"{path}: 16 bits per channel, expected 8")
    return pixels.astype(np.uint8, copy=False)


def write_picture(picture: Picture, path: str | Path, quality: int | None = None) -> None:
    """Encode a picture; the suffix of ``path`` selects the format.

    An existing file is replaced only when the new one is complete.

    Args:
        picture: Reduced to what the format can hold; see `agsr.image.encode`.
        path: The file.
        quality: 1 to 100 for JPEG, WebP and AVIF; None means 95, lossless and 90.

    Raises:
        ImageError: The suffix is unknown, or the file can't be written.

    >>> import tempfile
    >>> import numpy as np
    >>> from agsr.image.picture import Picture
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_picture(Picture(np.zeros((2, 3), np.uint8)), f"{folder}/a.png")
    ...     read_rgb(f"{folder}/a.png").shape
    (2, 3)
    """
    write_row_bands(as_row_bands(picture), Path(path), quality)


def write_row_bands(row_bands: RowBands, path: Location, quality: int | None = None) -> int:
    """Write a picture that is produced band by band; PNG and TIFF are written as bands arrive.

    Closes the bands afterwards, on failure too. Arguments and errors as for `write_picture`.
    Returns the number of bytes.

    >>> import tempfile
    >>> bands = as_row_bands(Picture(np.zeros((5, 4), np.uint8)), rows=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     size = write_row_bands(bands, Path(folder, "a.png"))
    ...     size == Path(folder, "a.png").stat().st_size, read_rgb(f"{folder}/a.png").shape
    (True, (5, 4))
    """
    check_format(str(path), path.suffix, quality)
    try:
        with (
            closing(row_bands),
            complete(path) as temporary,
        ):
            with temporary.open("wb") as stream:
                write_encoded(row_bands, stream, path.suffix, str(path), quality)
            return temporary.stat().st_size
    except OSError as error:
        raise ImageError(f"{path}: can't be written: {error.strerror}") from None


def _read_bytes(path: Location) -> bytes:
    if isinstance(path, Path) and path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "not a regular file"
        raise ImageError(f"{path}: {kind}; expected an image file, or '-' for stdin")
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except OSError as error:
        raise ImageError(f"{path}: can't be read: {error.strerror}") from None
    if not content:
        raise ImageError(f"{path}: the file is empty (0 bytes)")
    return content
