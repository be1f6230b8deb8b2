"""Attentive-GAN image super-resolution (×4): training, ONNX export, inference and benchmarking.

    >>> from agsr import Upscaler
    >>> sr = Upscaler("psnr", steps=4)(image)  # doctest: +SKIP

Names are loaded on first use: ``import agsr`` imports neither numpy, torch nor onnxruntime.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from agsr._version import __version__

if TYPE_CHECKING:
    from agsr.engines.upscaler import Upscaler
    from agsr.errors import AgsrError
    from agsr.image.files import read_picture, write_picture
    from agsr.image.ops.output_size import OutputSize

__all__ = [
    "AgsrError",
    "OutputSize",
    "Upscaler",
    "__version__",
    "read_picture",
    "write_picture",
]

_MODULES = {
    "AgsrError": "agsr.errors",
    "OutputSize": "agsr.image.ops.output_size",
    "Upscaler": "agsr.engines.upscaler",
    "read_picture": "agsr.image.files",
    "write_picture": "agsr.image.files",
}
"""Module that defines each public name."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'agsr' has no attribute '{name}'")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
