"""Headers of safetensors files, and what this project writes into them.

Eight bytes with the length of a JSON header, the header, and the tensors' bytes.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from agsr.errors import CheckpointError
from agsr.system.file_kind import head, is_torch, known_kind

CHECKPOINT_FORMAT = "agsr-generator-1"
"""Value of ``format`` in the header of this project's weights files."""

METADATA = "__metadata__"
"""Name of the header's entry that is not a tensor."""

LENGTH_BYTES = 8
"""Size of the header's length."""

_LARGEST_HEADER = 64 << 20
"""Bytes of the largest header of a safetensors file."""


def safetensors_header(path: Path) -> tuple[int, dict[str, Any]] | None:
    """Read the header of a safetensors file; nothing else of it is read.

    Returns:
        The bytes that follow the header, and its entries by name; None if there is no header.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(LENGTH_BYTES), "little")
            held = os.fstat(file.fileno()).st_size - LENGTH_BYTES - length
            if not 2 <= length <= _LARGEST_HEADER or held < 0:
                return None
            entries = json.loads(file.read(length))
    except (OSError, ValueError, RecursionError):
        return None
    return (held, entries) if isinstance(entries, dict) else None


def require_safetensors(path: Path) -> None:
    """Check that a ``.safetensors`` file is one, by its header.

    Raises:
        CheckpointError: It is another kind of file, or truncated.
    """
    if path.suffix != ".safetensors" or not path.is_file() or safetensors_header(path):
        return
    start = head(path)
    if found := known_kind(start):
        rename = "; rename it to .pth" if is_torch(start) else ""
        raise CheckpointError(f"{path}: not a readable safetensors file but {found}{rename}")
    raise CheckpointError(f"{path}: not a readable safetensors file: its header is damaged")
