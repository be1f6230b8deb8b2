"""Networks of other projects as PyTorch weights: ``.pth`` and ``.safetensors`` files."""

from __future__ import annotations

__all__: list[str] = []
