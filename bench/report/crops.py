"""Qualitative crops of a benchmark: the same region by every method, and attention maps.

`CropCollector` observes the run; `agsr.bench.report.html` shows the crops.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from agsr.bench.data.sets import TestImage
from agsr.bench.runner.entries import Entry
from agsr.bench.runner.plan import Size
from agsr.datasets.pairs import Image8
from agsr.pretrained import find_checkpoint
from agsr.system.optional_import import require

SCENE: Size = (360, 540)
"""Largest height and width of a scene, HR pixels."""

MAX_SCENES = 5
"""Number of images shown, the first ones of the run."""

QUALITY = 92
"""WebP quality of the scenes. Scores are computed on the pixels, not on these files."""


@dataclass(frozen=True)
class Box:
    """A region of an image, HR pixels."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, image: Image8) -> Image8:
        """Return the part of an image inside the box, as RGB."""
        part = image[self.top : self.top + self.height, self.left : self.left + self.width]
        return part if part.ndim == 3 else np.asarray(part[..., None].repeat(3, axis=2))


@dataclass(frozen=True)
class Crop:
    """A region of an image by one method."""

    label: str
    """The method's name, with full paths: the folder may be the only difference between files."""
    pixels: Image8
    """``(H, W, 3)`` RGB."""


class Scene:
    """The most detailed region of one image, by every method.

    For each weights, only the largest step count on the first backend is stored: other backends
    give the same pixels.
    """

    def __init__(self, name: str, image: TestImage) -> None:
        self.title = f"{name} {image.name}"
        self.box = most_detailed(image.hr, SCENE)
        self.lr = image.lr
        self._original = Crop("original", self.box.cut(image.hr))
        self._shown: dict[str, tuple[Entry, Image8]] = {}

    @property
    def crops(self) -> list[Crop]:
        """The original, Bicubic, then one crop per network, in the order of arrival."""
        shown = sorted(self._shown.values(), key=lambda found: found[0].is_network)
        return [self._original, *(Crop(_label(entry), pixels) for entry, pixels in shown)]

    def add(self, entry: Entry, sr: Image8) -> None:
        """Add the region of one SR image, uint8, of the original's size."""
        present = self._shown.get(entry.weights)
        if present is None or _supersedes(entry, present[0]):
            self._shown[entry.weights] = entry, self.box.cut(sr)


class CropCollector:
    """Collects scenes while a benchmark scores its images."""

    def __init__(self) -> None:
        self._scenes: dict[tuple[str, str], Scene] = {}

    @property
    def scenes(self) -> list[Scene]:
        """Scenes in the order of arrival."""
        return list(self._scenes.values())

    def __call__(self, name: str, image: TestImage, entry: Entry, sr: Image8) -> None:
        """Add one SR image; see `agsr.bench.runner.plan.Observer`."""
        key = name, image.name  # image names repeat across sets
        if key not in self._scenes:
            if len(self._scenes) == MAX_SCENES:
                return
            self._scenes[key] = Scene(name, image)
        self._scenes[key].add(entry, sr)


def _label(entry: Entry) -> str:
    if not entry.is_network:
        return "Bicubic"
    return replace(entry, backend="", precision=None).label


def _supersedes(entry: Entry, present: Entry) -> bool:
    more = (entry.steps or 0) > (present.steps or 0)
    return entry.backend == present.backend and more


def most_detailed(image: Image8, size: Size) -> Box:
    """Return the region with the strongest detail, by mean absolute Laplacian.

    Args:
        image: ``(H, W, 3)`` or ``(H, W)``.
        size: Largest height and width of the region.
    """
    height, width = (min(side, most) for side, most in zip(image.shape, size, strict=False))
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    detail = np.abs(cv2.Laplacian(grey, cv2.CV_32F))
    sums = cv2.integral(detail)
    inside = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width]
    inside = inside + sums[:-height, :-width]
    top, left = np.unravel_index(int(inside.argmax()), inside.shape)
    return Box(int(top), int(left), height, width)


def close_ups(scene: Scene, side: int = 96) -> list[Crop]:
    """Cut a scene's crops to its most detailed square, at most ``(side, side, 3)``."""
    box = most_detailed(scene.crops[0].pixels, (side, side))
    return [Crop(crop.label, box.cut(crop.pixels)) for crop in scene.crops]


def attention_maps(weights: str, lr: Image8, steps: int) -> list[NDArray[np.float32]]:
    """Return the maps ``A_1 … A_steps`` of an LR image, ``(H, W)`` in [0, 1] each; needs torch.

    The list is empty for a network without attention.

    Raises:
        CheckpointError: The weights are missing or damaged.
        MissingDependencyError: torch is not installed.
    """
    require("torch", extra="train", purpose="Attention maps")
    import torch

    from agsr.model.checkpoint import load_checkpoint
    from agsr.model.generator import Generator
    from agsr.model.tensors import to_tensor

    network = load_checkpoint(find_checkpoint(weights)).build()
    if not isinstance(network, Generator):
        return []
    with torch.inference_mode():
        maps = network.attention_maps(to_tensor(lr[None], torch.device("cpu")), steps)
    return [tensor[0, 0].numpy() for tensor in maps]


def to_grey_images(maps: Sequence[NDArray[np.float32]]) -> list[Image8]:
    """Convert maps ``(H, W)`` to uint8 images; white is the largest value of all maps."""
    brightest = max(float(plane.max()) for plane in maps)
    return [np.asarray(plane / brightest * 255).astype(np.uint8) for plane in maps]


def data_uri(image: Image8, kind: str) -> str:
    """Encode an image, ``(H, W, 3)`` RGB or ``(H, W)``, as a data URI of ``png`` or ``webp``."""
    pixels = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    options = [cv2.IMWRITE_WEBP_QUALITY, QUALITY] if kind == "webp" else []
    _, content = cv2.imencode(f".{kind}", pixels, options)
    return f"data:image/{kind};base64," + base64.b64encode(content.tobytes()).decode("ascii")
