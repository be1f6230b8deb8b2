"""What exported files say of themselves."""

from __future__ import annotations

from pathlib import Path

from agsr.contract import ModelMetadata
from agsr.engines.onnx_file.inspect import read_properties


def metadata_of(path: Path) -> ModelMetadata:
    """Return the metadata in an exported file."""
    return ModelMetadata.from_properties(read_properties(path), str(path))
