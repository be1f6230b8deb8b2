"""Batches of image files: inputs, plan, and the loop over them."""
