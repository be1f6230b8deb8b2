"""Test sets: found, fetched, and read as pairs of HR and LR images."""
