"""MATLAB's ``imresize(image, 1/s, 'bicubic')``: the field's way to make LR images.

An antialiased cubic with a = -0.5, stretched to 4s taps (16 for ×4, the default scale);
out-of-range indices are clamped to the edge; rows first; rounded half-up and clipped to uint8 after
each of the two passes. At 1/4 it reproduces the published LR images of Set5, Set14 and BSD100
without a mismatch; at other scales it follows MATLAB's source, without such a comparison.
``upscale`` is the same kernel without antialiasing: the Bicubic baseline of every table.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agsr.contract import SCALE

__all__ = [
    "Image8",
    "crop_to_multiple",
    "downscale",
    "lr_size",
    "phase_filters",
    "upscale",
    "upscale_planes",
]

Image8 = NDArray[np.uint8]


def crop_to_multiple(image: NDArray[Any], multiple: int = SCALE) -> NDArray[Any]:
    """Crop ``(H, W[, C])`` at the bottom and right to multiples of ``multiple``.

    >>> crop_to_multiple(np.zeros((9, 14, 3))).shape
    (8, 12, 3)
    """
    height, width = image.shape[0] // multiple * multiple, image.shape[1] // multiple * multiple
    return image[:height, :width]


def downscale(image: Image8, scale: int = SCALE) -> Image8:
    """Downscale a uint8 image ``(H, W[, C])``; H and W must be multiples of the scale.

    >>> downscale(np.full((6, 9), 7, np.uint8), 3).tolist()
    [[7, 7, 7], [7, 7, 7]]

    Raises:
        ValueError: A side is not a positive multiple of the scale.
    """
    return _resize(image, *lr_size(image, scale))


def lr_size(image: NDArray[Any], scale: int = SCALE) -> tuple[int, int]:
    """Return height and width of the LR image of an HR image ``(H, W[, C])``.

    Raises:
        ValueError: A side is not a positive multiple of the scale.

    >>> lr_size(np.zeros((8, 12, 3)))
    (2, 3)
    """
    if image.shape[0] % scale or image.shape[1] % scale or 0 in image.shape:
        raise ValueError(f"image is {image.shape[:2]}; crop it to multiples of {scale} first")
    return image.shape[0] // scale, image.shape[1] // scale


def upscale(image: Image8, scale: int = SCALE) -> Image8:
    """Upscale a uint8 image ``(H, W[, C])``: the Bicubic baseline.

    >>> upscale(np.full((2, 3), 7, np.uint8)).shape
    (8, 12)
    """
    return _resize(image, image.shape[0] * scale, image.shape[1] * scale)


def upscale_planes(planes: NDArray[np.float32], scale: int = SCALE) -> NDArray[np.float32]:
    """Upscale float planes ``(..., H, W)``, neither rounded nor clipped.

    >>> upscale_planes(np.ones((3, 2, 3), np.float32)).shape
    (3, 8, 12)
    """
    rows, columns = (_weights(side, side * scale).astype(np.float32) for side in planes.shape[-2:])
    return np.asarray(rows @ planes @ columns.T, dtype=np.float32)


def phase_filters(radius: int, scale: int = SCALE) -> NDArray[np.float64]:
    """Return `upscale` as one convolution kernel per output pixel of an LR pixel.

    Args:
        radius: LR pixels to each side that the kernels cover; bicubic reads 2.
        scale: Output pixels per LR pixel along each axis.

    Returns:
        ``(scale², 1, 2 radius + 1, 2 radius + 1)``, output pixels in pixel shuffle's order.

    >>> phase_filters(2).sum(axis=(1, 2, 3)).round(6).tolist() == [1.0] * 16
    True
    """
    side = 2 * radius + 1
    middle = radius * scale  # the centre pixel's first output
    phases = _weights(side, side * scale)[middle : middle + scale]
    filters = phases[:, None, :, None] * phases[None, :, None, :]
    return filters.reshape(scale**2, 1, side, side)


def _resize(image: Image8, height: int, width: int) -> Image8:
    rows = np.tensordot(_weights(image.shape[0], height), image.astype(np.float64), axes=(1, 0))
    columns = np.tensordot(_weights(image.shape[1], width), _to_uint8(rows), axes=(1, 1))
    return _to_uint8(np.ascontiguousarray(np.moveaxis(columns, 0, 1)))


def _to_uint8(values: NDArray[np.float64]) -> Image8:
    return np.floor(np.clip(values, 0, 255) + 0.5).astype(np.uint8)


@lru_cache(maxsize=256)
def _weights(length: int, new_length: int) -> NDArray[np.float64]:
    """Return the ``(new_length, length)`` matrix that resizes a column."""
    scale = new_length / length
    stretch = min(scale, 1.0)  # the kernel is stretched only for downscaling (antialiasing)
    taps = int(np.ceil(4 / stretch)) + 2
    centre = (np.arange(new_length) + 0.5) / scale - 0.5
    first = np.floor(centre - 2 / stretch).astype(np.int64)
    index = first[:, None] + np.arange(taps)
    weight = _cubic(stretch * (centre[:, None] - index))
    weight /= weight.sum(axis=1, keepdims=True)
    matrix = np.zeros((new_length, length))
    np.add.at(matrix, (np.arange(new_length)[:, None], index.clip(0, length - 1)), weight)
    return matrix


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Evaluate Keys' cubic convolution kernel with a = -0.5.

    `agsr.image.ops.resample` sums in another order; here the order is MATLAB's.
    """
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))
