"""Checkpoint → self-describing ONNX file: loop unrolled, verified against torch."""

from agsr.export.exporter import ExportReport, export_onnx

__all__ = ["ExportReport", "export_onnx"]
