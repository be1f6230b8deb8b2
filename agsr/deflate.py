"""How hard zlib works on pixels: one level for PNG and TIFF, by whichever library."""

from __future__ import annotations

from typing import Final

LEVEL: Final = 3
"""On photos 3 % larger than zlib's usual 6, in a third of the time."""
