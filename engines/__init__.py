"""Everything that runs a network: `Upscaler`, tiling, and the backends.

Importing this package loads no runtime; `Upscaler` and `open_backend` are imported at first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agsr.engines.open import open_backend
    from agsr.engines.upscaler import Upscaler

__all__ = ["Upscaler", "open_backend"]


def __getattr__(name: str) -> Any:
    if name == "Upscaler":
        from agsr.engines.upscaler import Upscaler

        return Upscaler
    if name == "open_backend":
        from agsr.engines.open import open_backend

        return open_backend
    raise AttributeError(f"module 'agsr.engines' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
