"""TensorRT and TensorRT-RTX: building, caching and running engines, and the CUDA layer below."""
