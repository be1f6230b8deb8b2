"""Pictures of a benchmark: the same crops by every method, and attention maps step by step."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from agsr.bench.contenders import Contender
from agsr.bench.datasets import TestImage
from agsr.bench.plan import Size
from agsr.catalog import find_checkpoint
from agsr.data import Image8
from agsr.optional import require

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


@dataclass
class Scene:
    """One image's most detailed part, by every method."""

    image: str
    """Name of the image."""
    box: Box
    """Where the part lies."""
    lr: Image8
    """The whole LR image."""
    parts: dict[str, Image8] = field(default_factory=dict)
    """By method; the original first."""


class Gallery:
    """Looks on while a benchmark scores, and keeps scenes.

    Bicubic is kept, and of each weights the largest step count on the first backend that has it:
    other backends give the same pixels.
    """

    def __init__(self) -> None:
        self.scenes: dict[str, Scene] = {}
        self._chosen: dict[str, Contender] = {}

    @property
    def labels(self) -> dict[str, str]:
        """What each method is called in full."""
        return {method: _label(contender) for method, contender in self._chosen.items()}

    def __call__(self, image: TestImage, contender: Contender, sr: Image8) -> None:
        """Look at one SR image (see `agsr.bench.plan.Observer`)."""
        if image.name not in self.scenes:
            if len(self.scenes) == MOST_SCENES:
                return
            box = most_detailed(image.hr, SCENE)
            parts = {"original": box.cut(image.hr)}
            self.scenes[image.name] = Scene(image.name, box, image.lr, parts)
        if self._takes(contender):
            scene = self.scenes[image.name]
            scene.parts[_method(contender)] = scene.box.cut(sr)

    def _takes(self, contender: Contender) -> bool:
        method = _method(contender)
        present = self._chosen.get(method)
        if present is None or (present.backend == contender.backend and _more(contender, present)):
            self._chosen[method] = contender
        return self._chosen[method] == contender


def _method(contender: Contender) -> str:
    return Path(contender.weights).name if contender.is_network else "Bicubic"


def _label(contender: Contender) -> str:
    if contender.steps is None:
        return _method(contender)
    return f"{_method(contender)}, {contender.steps} steps"


def _more(contender: Contender, present: Contender) -> bool:
    return (contender.steps or 0) > (present.steps or 0)


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


def closer(scene: Scene, side: int = 96) -> dict[str, Image8]:
    """The most detailed square of a scene, by method."""
    box = most_detailed(scene.parts["original"], (side, side))
    return {name: box.cut(part) for name, part in scene.parts.items()}


def attention_maps(weights: str, lr: Image8, steps: int) -> list[NDArray[np.float32]]:
    """The maps ``A_1 … A_steps`` for an LR image, ``(H, W)`` in [0, 1] each; needs torch.

    Empty for a network without maps.

    Raises:
        CheckpointError: No such weights.
        MissingDependencyError: torch is not installed.
    """
    require("torch", extra="train", purpose="Attention maps")
    import torch

    from agsr.checkpoint import load_checkpoint
    from agsr.generator import Generator
    from agsr.validation import to_tensor

    network = load_checkpoint(find_checkpoint(weights)).build()
    if not isinstance(network, Generator):
        return []
    with torch.inference_mode():
        maps = network.attention_maps(to_tensor(lr[None], torch.device("cpu")), steps)
    return [tensor[0, 0].numpy() for tensor in maps]


def as_greys(maps: Sequence[NDArray[np.float32]]) -> list[Image8]:
    """Maps as images; white is their largest value."""
    brightest = max(float(plane.max()) for plane in maps)
    return [np.asarray(plane / brightest * 255).astype(np.uint8) for plane in maps]


def data_uri(image: Image8, kind: str) -> str:
    """An image, ``(H, W, 3)`` RGB or ``(H, W)``, as a URI that holds it: ``png`` or ``webp``."""
    pixels = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    options = [cv2.IMWRITE_WEBP_QUALITY, QUALITY] if kind == "webp" else []
    _, content = cv2.imencode(f".{kind}", pixels, options)
    return f"data:image/{kind};base64," + base64.b64encode(content.tobytes()).decode("ascii")
