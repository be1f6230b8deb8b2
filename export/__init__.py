"""Checkpoint → self-describing ONNX file: loop unrolled, verified against torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agsr.export.exporter import ExportReport, export_onnx

__all__ = ["ExportReport", "export_onnx"]


def __getattr__(name: str) -> Any:
    """Import the exporter when it is used: modules beside it need neither torch nor onnx."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from agsr.export import exporter

    return getattr(exporter, name)
