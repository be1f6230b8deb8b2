"""ONNX files before they are run: contents, requirements, and checks of exported ones."""
