"""ONNX files before they are run: their contents, their requirements, and checks of exported ones."""
