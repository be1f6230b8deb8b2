"""×4 networks of other projects: ONNX files of unknown layout, type and range."""

from agsr.engines.foreign.backend import ForeignBackend
from agsr.engines.foreign.io_spec import Hints

__all__ = ["ForeignBackend", "Hints"]
