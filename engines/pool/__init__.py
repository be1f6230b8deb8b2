"""Batches in several worker processes: one per GPU, or several that share the CPUs."""
