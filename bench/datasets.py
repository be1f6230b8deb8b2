"""Test sets: found by name or path, read as HR images with the LR images made of them.

The LR images are not kept: making one takes about as long as decoding its HR image.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agsr.bench.fetch import Progress, fetch_set, kept_set, sources
from agsr.data import IMAGE_SUFFIXES, Image8
from agsr.errors import DatasetError
from agsr.image import read_rgb
from agsr.resize import crop_to_multiple, downscale

DATA_VARIABLE = "AGSR_DATA"
"""Environment variable that names the data folder."""

SMALLEST = 20
"""Shortest side of an HR image: an 11x11 window inside a border of 4, as a multiple of 4."""

_PLACES = ("{name}", "val/{name}")


@dataclass(frozen=True)
class TestImage:
    """One image of a set. A grey one is ``(H, W)``, any other ``(H, W, 3)`` RGB; all uint8."""

    __test__ = False  # not a test class, whatever pytest thinks of the name

    name: str
    """File name without suffix."""
    hr: Image8
    """Target, cropped top-left to multiples of four."""
    lr: Image8
    """MATLAB-bicubic quarter of it."""


@dataclass(frozen=True)
class ImageSet:
    """A named list of HR image files."""

    name: str
    """``Set5``, or the folder's name."""
    files: tuple[Path, ...]
    """HR files, sorted by name."""

    def __iter__(self) -> Iterator[TestImage]:
        for path in self.files:
            hr = crop_to_multiple(read_rgb(path))
            if min(hr.shape[:2]) < SMALLEST:
                raise DatasetError(
                    f"{path}: {hr.shape[1]}x{hr.shape[0]} pixels; SSIM without its border needs "
                    f"{SMALLEST}x{SMALLEST}"
                )
            yield TestImage(path.stem, hr, downscale(hr))


def data_folder(given: Path | None = None) -> Path | None:
    """The folder with the data sets: the given one, else ``$AGSR_DATA``, else None."""
    if given is not None:
        return given
    named = os.environ.get(DATA_VARIABLE)
    return Path(named) if named else None


def find_set(
    name: str, data: Path | None = None, *, fetch: bool = False, progress: Progress | None = None
) -> ImageSet:
    """A test set by name (``Set5``, ``Urban100``, ``Kodak24``, ...) or by a folder's path.

    A named set is looked for in ``data``, in ``$AGSR_DATA`` and among those fetched before.

    Args:
        name: Name or path. Where the folder holds a folder ``HR``, the images are those in it.
        data: Folder that holds named sets.
        fetch: Fetch a set that is nowhere here; see `agsr.bench.fetch`.
        progress: Told the number of files fetched, and of all.

    Raises:
        DatasetError: There is no such set, no image in it, or it can't be fetched.
        MissingDependencyError: Fetching needs a package that is not installed.
    """
    if data is not None and not data.is_dir():
        raise DatasetError(f"{data}: no such folder; --data names the one that holds the sets")
    folder = _locate(name, data)
    if folder is None and fetch and name in sources():
        folder = fetch_set(name, progress=progress)
    if folder is None:
        raise DatasetError(_not_found(name, data))
    images = folder / "HR" if (folder / "HR").is_dir() else folder
    files = sorted(p for p in images.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise DatasetError(f"{images}: no images in this folder")
    return ImageSet(folder.resolve().name, tuple(files))


def _locate(name: str, data: Path | None) -> Path | None:
    """The set's folder, if it is anywhere on this machine."""
    named = (folder for folder in _candidates(name, data) if folder.is_dir())
    as_path = Path(name) if Path(name).is_dir() else None
    return next(named, None) or kept_set(name) or as_path


def _candidates(name: str, data: Path | None) -> list[Path]:
    """Where the data folders would hold the set."""
    folders = dict.fromkeys(folder for folder in (data, data_folder()) if folder is not None)
    return [folder / place.format(name=name) for folder in folders for place in _PLACES]


def _not_found(name: str, data: Path | None) -> str:
    looked = ", ".join(map(str, _candidates(name, data)))
    looked = looked or f"no data folder, {DATA_VARIABLE} is not set"
    if name in sources():
        advice = "fetch it with --fetch"
    else:
        advice = f"give the path of a folder of HR images ({', '.join(sources())}: with --fetch)"
    return (
        f"no image set '{name}' ({looked}); {advice}, or name the folder that holds {name}/HR "
        f"with --data or {DATA_VARIABLE}"
    )
