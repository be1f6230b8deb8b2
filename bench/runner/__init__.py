"""A benchmark run: its entries, each in a worker process, and their measurements."""
