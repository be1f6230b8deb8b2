"""Read and write image files with their metadata; pixel operations.

>>> from agsr.image import read_picture, write_picture
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agsr.image.files import read_picture, read_rgb, write_picture, write_row_bands

__all__ = ["read_picture", "read_rgb", "write_picture", "write_row_bands"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from agsr.image import files

        return getattr(files, name)
    raise AttributeError(f"module 'agsr.image' has no attribute '{name}'")
