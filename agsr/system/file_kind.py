"""What a file is by its first bytes, for messages about files with a wrong name.

`agsr.pretrained`, `agsr.engines.community` and `agsr.engines.onnx_file` describe weights with it
that aren't what their ending promises.
"""

from __future__ import annotations

import json
from pathlib import Path

WEIGHTS_SUFFIXES = (".onnx", ".safetensors", ".engine", ".pth", ".pt", ".ckpt")
"""Endings of weights files, also of those that are not loaded."""

HEAD = 8
"""Number of bytes that `describe` looks at."""

ZIP = b"PK\x03\x04"
"""First bytes of a ZIP archive, as torch writes."""

PICKLE = b"\x80"
"""First byte of a pickle."""

_BEGINNINGS = {
    ZIP: "a ZIP archive, as torch writes",
    PICKLE: "a pickle",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"RIFF": "a RIFF file, like WebP",
    b"GIF8": "a GIF image",
    b"\x1f\x8b": "a gzip archive; unpack it",
    b"7z\xbc\xaf": "a 7-Zip archive; unpack it",
    b"Rar!": "a RAR archive; unpack it",
    b"%PDF": "a PDF document",
    b"<!DO": "a web page, not the download itself",
    b"<!do": "a web page, not the download itself",
    b"<htm": "a web page, not the download itself",
    b"vers": "a Git LFS pointer, not the file itself; fetch it with: git lfs pull",
    b"\x08\x03": "an ONNX file",
}


def describe(start: bytes) -> str:
    r"""Describe a file by its first bytes.

    >>> describe(b"\x89PNG\r\n"), describe(b"")
    ('a PNG image', 'an empty file')
    """
    text = json.dumps(start[:HEAD].decode("latin-1"))
    return known_kind(start) or f"an unknown one, which begins with {text}"


def known_kind(start: bytes) -> str:
    """Return what a file is by its first bytes; empty if they are of no known kind."""
    if not start:
        return "an empty file"
    kinds = (kind for beginning, kind in _BEGINNINGS.items() if start.startswith(beginning))
    return next(kinds, "")


def is_torch(start: bytes) -> bool:
    """Return True if a file begins as torch's own do: a ZIP archive or a pickle."""
    return start.startswith((ZIP, PICKLE))


def head(path: Path) -> bytes:
    """Return the first bytes of a file; empty if it can't be read."""
    try:
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError:
        return b""
