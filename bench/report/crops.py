"""Pictures of a benchmark: the same crops by every method, and attention maps step by step."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from agsr.bench.data.sets import TestImage
from agsr.bench.runner.entries import Contender
from agsr.bench.runner.plan import Size
from agsr.datasets.pairs import Image8
from agsr.pretrained import find_checkpoint
from agsr.system.optional_import import require

SCENE: Size = (360, 540)
"""Height and width of a scene at most, HR pixels."""

MOST_SCENES = 5
"""Images that are kept, the first ones of the run."""

QUALITY = 92
"""Of the scenes' WebP files. What is measured is measured on the pixels, not on these."""


@dataclass(frozen=True)
class Box:
    """A part of an image, HR pixels."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, image: Image8) -> Image8:
        """The part of an image that lies in the box, as RGB."""
        part = image[self.top : self.top + self.height, self.left : self.left + self.width]
        return part if part.ndim == 3 else np.asarray(part[..., None].repeat(3, axis=2))


@dataclass(frozen=True)
class Part:
    """A part of an image by one method."""

    label: str
    """The method's name: full paths, as folders may be all that tells two files apart."""
    pixels: Image8
    """``(H, W, 3)`` RGB."""


class Scene:
    """One image's most detailed part, by every method.

    Of each weights the largest step count on the first backend that has them is kept: other
    backends give the same pixels.
    """

    def __init__(self, name: str, image: TestImage) -> None:
        self.title = f"{name} {image.name}"
        self.box = most_detailed(image.hr, SCENE)
        self.lr = image.lr
        self._original = Part("original", self.box.cut(image.hr))
        self._kept: dict[str, tuple[Contender, Image8]] = {}

    @property
    def parts(self) -> list[Part]:
        """The original, Bicubic, then a part per network, in the order in which they came."""
        kept = sorted(self._kept.values(), key=lambda seen: seen[0].is_network)
        return [self._original, *(Part(_label(contender), part) for contender, part in kept)]

    def show(self, contender: Contender, sr: Image8) -> None:
        """Look at one SR image, uint8, of the original's size."""
        present = self._kept.get(contender.weights)
        if present is None or _supersedes(contender, present[0]):
            self._kept[contender.weights] = contender, self.box.cut(sr)


class Gallery:
    """Looks on while a benchmark scores, and keeps scenes."""

    def __init__(self) -> None:
        self._scenes: dict[tuple[str, str], Scene] = {}

    @property
    def scenes(self) -> list[Scene]:
        """In the order in which they were seen."""
        return list(self._scenes.values())

    def __call__(self, name: str, image: TestImage, contender: Contender, sr: Image8) -> None:
        """Look at one SR image (see `agsr.bench.runner.plan.Observer`)."""
        key = name, image.name  # sets number their images alike
        if key not in self._scenes:
            if len(self._scenes) == MOST_SCENES:
                return
            self._scenes[key] = Scene(name, image)
        self._scenes[key].show(contender, sr)


def _label(contender: Contender) -> str:
    if not contender.is_network:
        return "Bicubic"
    return replace(contender, backend="", precision=None).label


def _supersedes(contender: Contender, present: Contender) -> bool:
    more = (contender.steps or 0) > (present.steps or 0)
    return contender.backend == present.backend and more


def most_detailed(image: Image8, size: Size) -> Box:
    """The part of a size at most whose fine detail is strongest: mean absolute Laplacian."""
    height, width = (min(side, most) for side, most in zip(image.shape, size, strict=False))
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    detail = np.abs(cv2.Laplacian(grey, cv2.CV_32F))
    sums = cv2.integral(detail)
    inside = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width]
    inside = inside + sums[:-height, :-width]
    top, left = np.unravel_index(int(inside.argmax()), inside.shape)
    return Box(int(top), int(left), height, width)


def closer(scene: Scene, side: int = 96) -> list[Part]:
    """The scene's parts within its most detailed square, ``(side, side, 3)`` RGB, or smaller where
    the scene is."""
    box = most_detailed(scene.parts[0].pixels, (side, side))
    return [Part(part.label, box.cut(part.pixels)) for part in scene.parts]


def attention_maps(weights: str, lr: Image8, steps: int) -> list[NDArray[np.float32]]:
    """The maps ``A_1 … A_steps`` for an LR image, ``(H, W)`` in [0, 1] each; needs torch.

    Empty for a network without maps.

    Raises:
        CheckpointError: No such weights.
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


def as_greys(maps: Sequence[NDArray[np.float32]]) -> list[Image8]:
    """Maps, ``(H, W)`` each, as uint8 images of that size; white is the largest value of all."""
    brightest = max(float(plane.max()) for plane in maps)
    return [np.asarray(plane / brightest * 255).astype(np.uint8) for plane in maps]


def data_uri(image: Image8, kind: str) -> str:
    """An image, ``(H, W, 3)`` RGB or ``(H, W)``, as a URI that holds it: ``png`` or ``webp``."""
    pixels = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    options = [cv2.IMWRITE_WEBP_QUALITY, QUALITY] if kind == "webp" else []
    _, content = cv2.imencode(f".{kind}", pixels, options)
    return f"data:image/{kind};base64," + base64.b64encode(content.tobytes()).decode("ascii")
