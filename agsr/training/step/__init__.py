"""One training step: optimizers, and how its kernels are launched."""
