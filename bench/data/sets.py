"""Test sets: found by name or path, read as HR images with their LR images.

LR images that lie in the set are used (`agsr.bench.data.layouts`); others are made of the HR images
by the field's filter, and not cached: making one takes about as long as decoding its HR image.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agsr.bench.data.fetch import fetch_set, kept_set, sources
from agsr.bench.data.layouts import read_layout
from agsr.bicubic import crop_to_multiple, downscale, lr_size
from agsr.contract import SCALE
from agsr.datasets.pairs import Image8
from agsr.errors import AgsrError, DatasetError, UnfetchedSetError, UnknownSetError
from agsr.image import read_rgb
from agsr.metrics.psnr_ssim import WINDOW, border_of
from agsr.system.progress import ProgressCallback

DATA_VARIABLE = "AGSR_DATA"
"""Environment variable that names the data folder."""

_PLACES = ("{name}", "val/{name}")


@dataclass(frozen=True)
class TestImage:
    """One image of a set. A grey one is ``(H, W)``, any other ``(H, W, 3)`` RGB; all uint8."""

    __test__ = False  # not a test class, whatever pytest thinks of the name

    name: str
    """File name without suffix."""
    hr: Image8
    """Target, cropped top-left to multiples of the scale."""
    lr: Image8
    """The given LR image, or the HR image shrunk by MATLAB's bicubic: itself for a scale of 1."""


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """An image of a set that can't be used."""

    image: str
    """File name without suffix."""
    reason: str
    """Why; names the file."""


@dataclass(frozen=True)
class ImageSet:
    """A named list of HR image files, and the LR files that are given for them."""

    name: str
    """``Set5``, or the folder's name."""
    files: tuple[Path, ...]
    """HR files, sorted by name."""
    given: tuple[Path | None, ...] = ()
    """LR file of each HR file, None where it is missing; empty: all LR images are made."""
    notes: tuple[str, ...] = ()
    """What of the folder is used and what is skipped."""
    scale: int = SCALE
    """HR pixels per LR pixel along each axis."""

    @property
    def lr_is_given(self) -> bool:
        """Whether the set includes LR images."""
        return any(self.given)

    def __iter__(self) -> Iterator[TestImage]:
        """The images, in order.

        Raises:
            ImageError, DatasetError: One can't be used.
        """
        for number in range(len(self.files)):
            yield self._load(number)

    def usable(self, skip: Callable[[Skipped], object] = lambda _: None) -> Iterator[TestImage]:
        """The images that can be used, in order.

        Args:
            skip: Called with each of the others.
        """
        loaded = (self._load_or_skip(number, skip) for number in range(len(self.files)))
        yield from (image for image in loaded if image is not None)

    def _load_or_skip(self, number: int, skip: Callable[[Skipped], object]) -> TestImage | None:
        try:
            return self._load(number)
        except AgsrError as error:
            skip(Skipped(image=self.files[number].stem, reason=str(error)))
            return None

    def _load(self, number: int) -> TestImage:
        path = self.files[number]
        whole = read_rgb(path)
        hr, least = crop_to_multiple(whole, self.scale), smallest(self.scale)
        if min(hr.shape[:2]) < least:
            raise DatasetError(
                f"{path}: {hr.shape[1]}x{hr.shape[0]} pixels; SSIM without its border needs "
                f"{least}x{least}"
            )
        if not self.lr_is_given:
            return TestImage(path.stem, hr, downscale(hr, self.scale))
        given = self.given[number]
        if given is None:
            raise DatasetError(
                f"{path}: the other HR images have LR images, this one has none; --lr bicubic "
                "makes all of them"
            )
        return TestImage(path.stem, hr, _belonging(given, path, whole, hr, self.scale))


def smallest(scale: int) -> int:
    """Return the shortest side of an HR image: SSIM's window inside the border, as a multiple.

    >>> smallest(4), smallest(3), smallest(1)
    (20, 18, 11)
    """
    return -(-(WINDOW + 2 * border_of(scale)) // scale) * scale


def _belonging(given: Path, path: Path, whole: Image8, hr: Image8, scale: int) -> Image8:
    """A given LR image, grey or RGB as its HR image is.

    MATLAB rounds the size up where the HR image was not cropped before: its last row or column then
    covers what `crop_to_multiple` removes, and is removed likewise.
    """
    lr = read_rgb(given)
    height, width = lr_size(hr, scale)
    fits = (
        found in (cropped, -(-stored // scale))
        for found, cropped, stored in zip(lr.shape, (height, width), whole.shape, strict=False)
    )
    if not all(fits):
        raise DatasetError(
            f"{given}: {lr.shape[1]}x{lr.shape[0]} pixels; the LR image of {path} has "
            f"{width}x{height}; --lr bicubic ignores it"
        )
    lr = np.ascontiguousarray(lr[:height, :width])
    if lr.ndim < hr.ndim:
        return np.ascontiguousarray(lr[..., None].repeat(3, axis=2))
    if lr.ndim > hr.ndim:
        if (lr != lr[..., :1]).any():
            raise DatasetError(f"{given}: has colour; the HR image {path} is grey")
        return np.ascontiguousarray(lr[..., 0])
    return lr


def data_folder(given: Path | None = None) -> Path | None:
    """The folder with the data sets: the given one, else ``$AGSR_DATA``, else None."""
    if given is not None:
        return given
    named = os.environ.get(DATA_VARIABLE)
    return Path(named) if named else None


def find_set(
    name: str,
    data: Path | None = None,
    *,
    fetch: bool = False,
    progress: ProgressCallback | None = None,
    use_lr: bool = True,
    scale: int = SCALE,
) -> ImageSet:
    """A test set by name (``Set5``, ``Urban100``, ``Kodak24``, ...) or by a folder's path.

    A named set is looked for in ``data``, in ``$AGSR_DATA`` and among those fetched before.

    Args:
        name: Name or path; see `agsr.bench.data.layouts` for the layouts that are known.
        data: Folder that holds named sets.
        fetch: Fetch a set that is nowhere here; see `agsr.bench.data.fetch`.
        progress: Called with the number of files fetched, and of all.
        use_lr: Use LR images that lie in the set; otherwise all are made of the HR images.
        scale: Scale of the network that is scored; LR images of that scale are used.

    Raises:
        DatasetError: There is no such set, no image in it, its layout can be understood in two
            ways, or it can't be fetched.
        MissingDependencyError: Fetching needs a package that is not installed.
    """
    if data is not None and not data.is_dir():
        raise UnknownSetError(f"{data}: no such folder; --data names the one that holds the sets")
    folder = _locate(name, data)
    if folder is None and fetch and name in sources():
        folder = fetch_set(name, progress=progress)
    if folder is None:
        kind = UnfetchedSetError if name in sources() else UnknownSetError
        raise kind(_not_found(name, data))
    layout = read_layout(folder, use_lr=use_lr, scale=scale)
    given = layout.lr if any(layout.lr) else ()
    return ImageSet(folder.resolve().name, layout.hr, given, layout.notes, scale)


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
        advice = "fetch it once with --fetch (needs agsr[bench])"
    else:
        advice = f"give the path of a folder of HR images ({', '.join(sources())}: with --fetch)"
    return (
        f"no image set '{name}' ({looked}); {advice}, or name the folder that holds {name}/HR "
        f"with --data or {DATA_VARIABLE}"
    )
