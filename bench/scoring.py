"""Quality of a network on a test set by the field's protocol, beside the Bicubic baseline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from agsr.backend import BackendInfo
from agsr.bench.data.sets import ImageSet, Skipped, TestImage, data_folder
from agsr.bench.strict_json import to_json
from agsr.bicubic import upscale
from agsr.contract import SCALE
from agsr.datasets.pairs import Image8
from agsr.engines.upscaler import Upscaler
from agsr.metrics import psnr_y, ssim_y
from agsr.metrics.psnr_ssim import border_of
from agsr.system.optional_import import require

Distance = Callable[[Image8, Image8], float]
"""Perceptual distance of two images, smaller is better."""

_MADE = "LR by MATLAB imresize bicubic, uint8"


def protocol(scale: int = SCALE, *, lr_is_given: bool = False) -> str:
    """Return what the figures of a scale mean, in one line."""
    crop, lr, shaved = f"HR cropped top-left to multiples of {scale}; ", _MADE, border_of(scale)
    if scale == 1:
        crop, lr = "", "input = HR: PSNR shows how much the network changes"
    lr = "LR as given in the set" if lr_is_given else lr
    return (
        f"x{scale}; {crop}{lr}; SR rounded to uint8; BT.601 Y, not rounded; {shaved} pixels "
        "shaved; SSIM 11x11 Gaussian, sigma 1.5"
    )


PROTOCOL = protocol()
"""What the figures of this project's networks mean, in one line."""


def protocol_of(images: ImageSet) -> str:
    """Return the `protocol` of a set."""
    return protocol(images.scale, lr_is_given=images.lr_is_given)


@dataclass(frozen=True, kw_only=True)
class Scores:
    """How near an image is to the original."""

    psnr: float
    """PSNR-Y in dB; infinite for equal images."""
    ssim: float
    """SSIM-Y, at most 1."""
    lpips: float | None = None
    """Perceptual distance, where it was asked for."""


@dataclass(frozen=True, kw_only=True)
class QualityRow:
    """Scores of one image; PSNR in dB, LPIPS where it was asked for."""

    image: str
    psnr: float
    ssim: float
    bicubic_psnr: float
    bicubic_ssim: float
    lpips: float | None = None
    bicubic_lpips: float | None = None


@dataclass(frozen=True, kw_only=True)
class QualityReport:
    """Scores of one network on one set."""

    set: str
    """Name of the set."""
    backend: BackendInfo
    """What ran."""
    rows: tuple[QualityRow, ...]
    """One per image, by name."""
    protocol: str = PROTOCOL
    """How the figures were made."""
    skipped: tuple[Skipped, ...] = ()
    """Images that couldn't be used, and are not in the mean."""
    notes: tuple[str, ...] = ()
    """What of the set's folder was used."""

    @property
    def mean(self) -> QualityRow:
        """Unweighted mean over the images."""
        scores = {name for name, value in asdict(self.rows[0]).items() if isinstance(value, float)}
        means = {n: float(np.mean([getattr(row, n) for row in self.rows])) for n in scores}
        return QualityRow(image="mean", **means)

    def to_json(self) -> str:
        """The report as JSON, on one line."""
        return to_json({**asdict(self), "mean": asdict(self.mean)})


def evaluate(
    upscaler: Upscaler,
    images: ImageSet,
    distance: Distance | None = None,
    skip: Callable[[Skipped], object] | None = None,
) -> Iterator[QualityRow]:
    """Score a network image by image, in the set's order.

    Args:
        upscaler: The network.
        images: Test set.
        distance: Perceptual distance, for the ``lpips`` columns; see `lpips_alex`.
        skip: Called with each image that can't be used; None raises its error.
    """
    for image in images if skip is None else images.usable(skip):
        yield score(upscaler, image, distance)


def score(upscaler: Upscaler, image: TestImage, distance: Distance | None = None) -> QualityRow:
    """Score a network on one image."""
    scale = upscaler.info.scale
    own = compare(upscaler(image.lr), image.hr, distance, scale)
    bicubic = compare(upscale(image.lr, scale), image.hr, distance, scale)
    return QualityRow(
        image=image.name,
        **asdict(own),
        **{f"bicubic_{name}": value for name, value in asdict(bicubic).items()},
    )


def compare(sr: Image8, hr: Image8, distance: Distance | None = None, scale: int = SCALE) -> Scores:
    """Score one image of a scale against the original, both uint8 of one shape."""
    lpips, border = distance(sr, hr) if distance else None, border_of(scale)
    return Scores(psnr=psnr_y(sr, hr, border), ssim=ssim_y(sr, hr, border), lpips=lpips)


def change(new: float, old: float) -> float:
    """``new`` less ``old``; nothing between two images that are both equal to the original."""
    return 0.0 if new == old else new - old


def default_lpips(data: Path | None = None) -> Path | None:
    """The weights of LPIPS in the data folder, if they are there and torch is, to use them."""
    folder = data_folder(data)
    path = folder / "lpips" / "alexnet.npz" if folder else None
    return path if path and path.is_file() and find_spec("torch") else None


def lpips_alex(weights: Path) -> Distance:
    """LPIPS v0.1 on AlexNet features, on whole images; needs torch.

    Args:
        weights: ``alexnet.npz``, see `agsr.metrics.lpips`.

    Raises:
        CheckpointError: The file is missing or of another network.
    """
    require("torch", extra="train", purpose="LPIPS")
    from agsr.metrics.lpips import Lpips, lpips_images

    return partial(lpips_images, Lpips("alexnet", weights))
