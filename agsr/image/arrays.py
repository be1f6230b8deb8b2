"""Validate numpy arrays for the `Upscaler`, and convert them to and from `Picture`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from agsr.errors import ImageError
from agsr.image.picture import Picture

Array = NDArray[Any]

_LOWEST, _HIGHEST = -0.5, 1.5
"""Floats beyond these are not overshoot of [0, 1] but another range."""

_EXPECTED: Final = (
    "expected (H, W, 3) RGB, (H, W, 4) RGBA, (H, W) grey or (H, W, 2) grey with alpha; uint8, "
    "uint16, or floats in [0, 1]"
)


def upscale_array(image: Array, upscale: Callable[[Picture], Picture]) -> Array:
    """Upscale an array and return the result in the same layout and type.

    Args:
        image: ``(H, W)`` or ``(H, W, C)`` of 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA)
            channels; uint8, uint16, or floats of any width in [0, 1], computed in float32. Any
            strides and byte order.
        upscale: Called with a picture of native uint8, uint16 or float32.

    Raises:
        ImageError: Any other input; the message names it and suggests a fix.

    >>> upscale_array(np.zeros((2, 3), np.uint8), lambda picture: picture).shape
    (2, 3)
    """
    pixels = _usable(image)
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    planes = pixels.reshape(*pixels.shape[:2], channels)
    colour = planes[..., 0] if channels < 3 else planes[..., :3]
    result = upscale(Picture(colour, planes[..., -1] if channels in (2, 4) else None))
    return _joined(result, pixels.ndim).astype(image.dtype, copy=False)


def _joined(result: Picture, dimensions: int) -> Array:
    if result.alpha is None and result.pixels.ndim == dimensions:
        return result.pixels
    return np.dstack([result.pixels, *([] if result.alpha is None else [result.alpha])])


def _usable(image: Any) -> Array:
    """Return the array in a native type, or raise."""
    if not isinstance(image, np.ndarray):
        raise ImageError(_not_an_array(image))
    kind, size = image.dtype.kind, image.dtype.itemsize
    if 0 in image.shape or ((kind, size) not in (("u", 1), ("u", 2)) and kind != "f"):
        raise ImageError(f"array is {image.dtype} {image.shape}; {_EXPECTED}{_other_type(image)}")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] > 4):
        raise ImageError(f"array is {image.dtype} {image.shape}; {_EXPECTED}{_other_shape(image)}")
    if kind == "f":
        _check_range(image)
        return np.asarray(image, np.float32)
    return np.asarray(image, image.dtype.newbyteorder("="))


def _check_range(image: Array) -> None:
    """Reject floats outside [0, 1], like 0 to 255, and NaN, which would spread."""
    low, high = float(image.min()), float(image.max())  # NaN if any is
    if low >= _LOWEST and high <= _HIGHEST:
        return
    if not np.isfinite([low, high]).all():
        count = image.size - np.count_nonzero(np.isfinite(image))
        raise ImageError(f"array has NaN or infinity in {count} places; expected floats in [0, 1]")
    cause = ""
    if low >= 0:
        peak = next((peak for peak in (255, 65535) if high <= peak), None)
        cause = f"; is white {peak}? Then divide by {peak}" if peak else ""
    elif low >= -1.5 and high <= _HIGHEST:
        cause = "; is black -1? Then add 1 and divide by 2"
    raise ImageError(
        f"array is {image.dtype} from {low:.4g} to {high:.4g}; expected floats in [0, 1]{cause}"
    )


def _not_an_array(image: object) -> str:
    kind = type(image).__name__
    hint = {
        "Tensor": "tensor.permute(1, 2, 0).cpu().numpy() turns (3, H, W) into (H, W, 3)",
        "str": "PIL.Image.open opens a file",
        "PosixPath": "PIL.Image.open opens a file",
        "WindowsPath": "PIL.Image.open opens a file",
        "bytes": "PIL.Image.open(io.BytesIO(...)) opens the bytes of a file",
        "list": "np.array(..., np.uint8) makes an array",
    }.get(kind)
    return f"image is a {kind}; expected a numpy array or a Pillow image" + (
        f": {hint}" if hint else ""
    )


def _other_type(image: Array) -> str:
    if image.dtype.kind in "iu":
        return "; use .astype(np.uint8) if the values are from 0 to 255"
    return "; use .astype(np.float32)" if image.dtype.kind == "b" else ""


def _other_shape(image: Array) -> str:
    if image.ndim == 3 and image.shape[0] in (1, 3, 4):
        return "; channels come last: .transpose(1, 2, 0)"
    return "; one image at a time" if image.ndim == 4 else ""
