"""Realistic LR images: blurred, resized by random filters, sharpened, noisy, compressed.

A mild form of the second-order degradation of Real-ESRGAN (Wang et al., 2021): an image may have
been resized and saved once before. The faults are those of photographs from cameras and web pages.
They are weaker than in most blind restoration, so that clean inputs are not smoothed.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agsr.bicubic import downscale, lr_size
from agsr.contract import SCALE

Degradation = Literal["bicubic", "photo"]
"""Method of making LR images: the field's bicubic alone, or `degrade`."""

Image8 = NDArray[np.uint8]

CLEAN = 0.1
"""Probability of the field's bicubic alone."""
SAVED_BEFORE = 0.3
"""Probability that the image was resized and saved once before."""
BLUR, SHARPENING, NOISE, COMPRESSION = 0.5, 0.25, 0.4, 0.8
"""Probabilities, each time that an image is resized and saved."""

MAX_BLUR = 0.6
"""Largest standard deviation of the blur, in pixels of the saved image."""
MAX_SHARPENING = 1.0
"""Largest amount of an unsharp mask with a radius of one pixel."""
MAX_NOISE = 12.0
"""Largest standard deviation of noise, in 8-bit levels."""
MIN_QUALITY, MAX_QUALITY = 30, 95
"""Range of JPEG and WebP quality."""

_FILTERS = (
    Image.Resampling.BOX,
    Image.Resampling.BILINEAR,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
)


def degrade(hr: Image8, random: np.random.Generator) -> Image8:
    """Make an LR image from an HR image, with random faults.

    Args:
        hr: ``(4H, 4W, 3)`` RGB uint8.
        random: Random generator; equal states give equal images.

    Returns:
        ``(H, W, 3)`` RGB uint8, aligned with ``hr`` like the field's bicubic.

    Raises:
        ValueError: A side is not a positive multiple of 4.

    >>> degrade(np.zeros((32, 48, 3), np.uint8), np.random.default_rng(0)).shape
    (8, 12, 3)
    """
    height, width = lr_size(hr)
    if random.random() < CLEAN:
        return downscale(hr)
    image = hr
    if random.random() < SAVED_BEFORE:
        larger = SCALE ** random.random()  # than the LR image
        image = _resize_and_save(image, round(larger * height), round(larger * width), random)
    return _resize_and_save(image, height, width, random)


def _resize_and_save(image: Image8, height: int, width: int, random: np.random.Generator) -> Image8:
    if random.random() < BLUR:
        image = _blurred(image, image.shape[0] / height, random)
    resampling = _FILTERS[random.integers(len(_FILTERS))]
    image = np.array(Image.fromarray(image).resize((width, height), resampling))
    if random.random() < SHARPENING:
        image = _sharpened(image, random)
    if random.random() < NOISE:
        image = _noisy(image, random)
    if random.random() < COMPRESSION:
        image = _compressed(image, random)
    return image


def _blurred(image: Image8, pixel: float, random: np.random.Generator) -> Image8:
    """Blur by an anisotropic Gaussian; ``pixel`` is the side of a pixel after resizing."""
    widths = random.uniform(0.1, MAX_BLUR, 2) * pixel
    angle = random.uniform(0, np.pi)
    radius = int(np.ceil(3 * widths.max()))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    kernel = np.exp(-((along / widths[0]) ** 2 + (across / widths[1]) ** 2) / 2)
    return _levels(cv2.filter2D(image, -1, kernel / kernel.sum()))


def _sharpened(image: Image8, random: np.random.Generator) -> Image8:
    """Sharpen by an unsharp mask, as cameras and editors do."""
    amount = random.uniform(0.2, MAX_SHARPENING)
    soft = cv2.GaussianBlur(image, (0, 0), 1.0)
    return _levels(cv2.addWeighted(image, 1 + amount, soft, -amount, 0))


def _noisy(image: Image8, random: np.random.Generator) -> Image8:
    """Add uniform or Poisson-like noise, in colour or grey, sometimes smoothed."""
    strength = random.uniform(1, MAX_NOISE)
    channels = 1 if random.random() < 0.4 else 3
    shape = (*image.shape[:2], channels)
    noise: NDArray[np.floating] = random.normal(0, strength, shape).astype(np.float32)
    if random.random() < 0.3:
        soft = cv2.GaussianBlur(noise, (0, 0), random.uniform(0.4, 0.8))
        noise = np.asarray(soft, np.float32).reshape(shape)  # OpenCV drops an axis of length one
    if random.random() < 0.5:
        noise = noise * np.sqrt(image.astype(np.float32) / 255)
    return _levels(np.clip(np.rint(image + noise), 0, 255))


def _compressed(image: Image8, random: np.random.Generator) -> Image8:
    """Compress by JPEG, mostly with halved chroma, or by lossy WebP."""
    quality = int(random.integers(MIN_QUALITY, MAX_QUALITY + 1))
    halved = bool(random.random() < 0.7)
    if random.random() < 0.15:
        return _saved(image, ".webp", [cv2.IMWRITE_WEBP_QUALITY, quality])
    return through_jpeg(image, quality, halved=halved)


def through_jpeg(image: Image8, quality: int, *, halved: bool = True) -> Image8:
    """Compress an image as JPEG and decompress it.

    Args:
        image: ``(H, W, 3)`` RGB uint8.
        quality: 1 to 100.
        halved: Store chroma at half the resolution (4:2:0), as usual.
    """
    sampling = (
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420 if halved else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    )
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    return _saved(image, ".jpg", options)


def _saved(image: Image8, suffix: str, options: list[int]) -> Image8:
    """Encode by OpenCV with these options, and decode."""
    _, content = cv2.imencode(suffix, np.ascontiguousarray(image[..., ::-1]), options)
    return _levels(np.asarray(cv2.imdecode(content, cv2.IMREAD_COLOR))[..., ::-1])


def _levels(image: NDArray[np.generic]) -> Image8:
    """Convert integral levels to contiguous uint8."""
    return np.ascontiguousarray(image, dtype=np.uint8)
