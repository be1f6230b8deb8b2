"""agsr: train, export, run and measure an attentive-GAN super-resolution network (x4).

    >>> from agsr import Upscaler
    >>> sr = Upscaler("psnr", steps=4)(image)  # doctest: +SKIP

Importing this package loads neither torch nor onnxruntime.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agsr._version import __version__

if TYPE_CHECKING:
    from agsr.engines.upscaler import Upscaler

__all__ = ["Upscaler", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Upscaler":
        from agsr.engines.upscaler import Upscaler

        return Upscaler
    raise AttributeError(f"module 'agsr' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
