"""Training: configuration, patches, losses, the loop and its state. Requires torch."""
