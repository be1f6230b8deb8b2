"""Backends and sessions of torch, ONNX Runtime and OpenVINO."""
