"""Checkpoint → self-describing ONNX file: loop unrolled, verified against torch."""

from agsr.export.onnx_export import ExportReport, export_onnx

__all__ = ["ExportReport", "export_onnx"]
