"""ONNX files before they run: contents, requirements, and checks of exported files."""
