"""Training images from tar shards or folders, each decoded and downscaled once.

LR images are made by the field's bicubic (`agsr.bicubic`); `agsr.training.patch_sampler` cuts
patches.
"""

from __future__ import annotations

import hashlib
import logging
import tarfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray

from agsr.bicubic import crop_to_multiple, downscale
from agsr.contract import SCALE
from agsr.datasets.degradation import degrade
from agsr.errors import DatasetError, UnknownSetError
from agsr.system.cpu import thread_count

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".bmp", ".tif", ".tiff"}
)
"""Suffixes of image files, in lower case."""

Image8 = NDArray[np.uint8]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pair:
    """An HR image ``(4H, 4W, 3)`` and its LR image ``(H, W, 3)``, both RGB uint8."""

    hr: Image8
    lr: Image8


def is_image_name(name: str) -> bool:
    """Return True if a file name is that of an image; hidden and AppleDouble files are excluded.

    >>> is_image_name("photo.JPG"), is_image_name("._photo.jpg")
    (True, False)
    """
    return not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES


def load_pairs(sources: Sequence[Path], *, min_side: int, workers: int | None = None) -> list[Pair]:
    """Decode every image of the sources and make its LR image, in a fixed order.

    Unusable files are skipped, each with a warning; a last warning gives their number.

    Args:
        sources: Tar files and folders of images; folders are searched recursively.
        min_side: Images with a side shorter than this, in HR pixels, are skipped.
        workers: Decoding threads; None means one per core.

    Raises:
        DatasetError: A source is missing, or no usable image remains.
    """
    encoded = (item for source in sources for item in _encoded_images(source))
    pairs, files, bad = list[Pair](), 0, 0
    for pair in _decode_all(encoded, thread_count(workers)):
        files += 1
        bad += pair is None
        if pair is not None and _side(pair) >= min_side:
            pairs.append(pair)
    if bad:
        _log.warning("%d of %d image files are unusable; skipped", bad, files)
    if not pairs:
        names = ", ".join(map(str, sources)) or "no source"
        raise DatasetError(f"no image of at least {min_side} pixels a side in {names}")
    return pairs


def degrade_pairs(pairs: Sequence[Pair]) -> list[Pair]:
    """Replace LR images by those of `agsr.datasets.degradation`, reproducibly."""
    return [
        Pair(hr=pair.hr, lr=degrade(pair.hr, np.random.default_rng(index)))
        for index, pair in enumerate(pairs)
    ]


def fingerprint(pairs: Sequence[Pair]) -> str:
    """Return the SHA-256 over the LR images, in order, which identifies a training set."""
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(repr(pair.lr.shape).encode())
        digest.update(np.ascontiguousarray(pair.lr).tobytes())
    return digest.hexdigest()


def _decode_all(
    encoded: Iterable[tuple[str, bytes | OSError]], workers: int
) -> Iterator[Pair | None]:
    """Decode in parallel, in order, with a bounded number of encoded files in memory."""
    waiting: deque[Future[Pair | None]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for name, content in encoded:
            waiting.append(pool.submit(_decoded_or_none, name, content))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _encoded_images(source: Path) -> Iterator[tuple[str, bytes | OSError]]:
    """Yield name and content, or the error, of every image in a tar file or folder, by name."""
    try:
        if source.is_dir():
            yield from _folder_images(source)
        elif source.is_file() and tarfile.is_tarfile(source):
            yield from _tar_images(source)
        elif not source.exists():
            raise UnknownSetError(missing_source(source))
        else:
            raise DatasetError(f"{source}: expected a folder of images or a tar file of images")
    except (OSError, tarfile.TarError) as error:
        raise DatasetError(f"{source}: reading failed: {error}") from None


def missing_source(source: Path) -> str:
    """Return the error message for a source of images that doesn't exist."""
    return f"{source}: no such file; expected a folder of images or a tar file of images"


def _folder_images(folder: Path) -> Iterator[tuple[str, bytes | OSError]]:
    for path in sorted(folder.rglob("*")):
        if _is_visible_image(path.relative_to(folder)) and path.is_file():
            try:
                yield str(path), path.read_bytes()
            except OSError as error:
                yield str(path), error


def _is_visible_image(path: PurePath) -> bool:
    hidden = any(part.startswith(".") and part not in (".", "..") for part in path.parts)
    return not hidden and is_image_name(path.name)


def _tar_images(source: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(source) as archive:
        for member in sorted(archive.getmembers(), key=lambda m: m.name):
            content = archive.extractfile(member) if member.isfile() else None
            if content and _is_visible_image(PurePosixPath(member.name)):
                yield f"{source}:{member.name}", content.read()


def _decoded_or_none(name: str, content: bytes | OSError) -> Pair | None:
    """Decode a file; log a warning and return None if it is unusable."""
    try:
        if isinstance(content, OSError):
            raise DatasetError(f"{name}: reading failed: {content.strerror}")
        return _decode(name, content)
    except DatasetError as error:
        _log.warning("%s; skipped", error)
        return None


def _decode(name: str, content: bytes) -> Pair:
    try:
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        decoded = None
    if decoded is None:
        raise DatasetError(f"{name}: not an image that OpenCV can decode")
    hr = np.ascontiguousarray(crop_to_multiple(decoded[..., ::-1].astype(np.uint8, copy=False)))
    if 0 in hr.shape:
        height, width = decoded.shape[:2]
        raise DatasetError(f"{name}: {width}x{height} is smaller than {SCALE}x{SCALE}")
    return Pair(hr=hr, lr=downscale(hr))


def _side(pair: Pair) -> int:
    height, width = pair.hr.shape[:2]
    return int(min(height, width))
