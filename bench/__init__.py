"""Measuring: data sets, quality by the field's protocol, and the machine they are measured on."""

__all__ = ["data", "doctor", "measure", "report", "runner", "scoring"]
