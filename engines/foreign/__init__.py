"""Networks of other projects: ONNX files of unknown layout, type and range."""

from agsr.engines.foreign.backend import ForeignBackend, open_foreign
from agsr.engines.foreign.hints import Hints

__all__ = ["ForeignBackend", "Hints", "open_foreign"]
