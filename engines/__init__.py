"""Everything that runs a network: the torch and ONNX Runtime backends, and the `Upscaler`."""
