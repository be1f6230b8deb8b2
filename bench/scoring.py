"""Quality of a network on a test set by the field's protocol, beside the Bicubic baseline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any

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


def mean_scores(scores: Sequence[Scores]) -> Scores:
    """Return the unweighted mean; LPIPS only if every image has it.

    >>> mean_scores([Scores(psnr=30, ssim=0.75), Scores(psnr=32, ssim=0.25)])
    Scores(psnr=31.0, ssim=0.5, lpips=None)
    """
    lpips = [found.lpips for found in scores if found.lpips is not None]
    return Scores(
        psnr=fmean(found.psnr for found in scores),
        ssim=fmean(found.ssim for found in scores),
        lpips=fmean(lpips) if len(lpips) == len(scores) else None,
    )


@dataclass(frozen=True, kw_only=True)
class QualityRow:
    """Scores of one image, or their mean."""

    image: str
    """Name of the image."""
    scores: Scores
    """Of the network."""
    bicubic: Scores
    """Of Bicubic, from the same LR image."""

    def record(self) -> dict[str, Any]:
        """Return the row for JSON: one level, Bicubic's scores with a prefix."""
        bicubic = {f"bicubic_{name}": value for name, value in asdict(self.bicubic).items()}
        return {"image": self.image, **asdict(self.scores), **bicubic}


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
        return QualityRow(
            image="mean",
            scores=mean_scores([row.scores for row in self.rows]),
            bicubic=mean_scores([row.bicubic for row in self.rows]),
        )

    def to_json(self) -> str:
        """The report as JSON, on one line."""
        rows = [row.record() for row in self.rows]
        return to_json({**asdict(self), "rows": rows, "mean": self.mean.record()})


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
    return QualityRow(
        image=image.name,
        scores=compare(upscaler(image.lr), image.hr, distance, scale),
        bicubic=compare(upscale(image.lr, scale), image.hr, distance, scale),
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
