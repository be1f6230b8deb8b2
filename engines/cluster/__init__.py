"""Batches on a Ray cluster: warm actors read, upscale and write; rows come back."""
