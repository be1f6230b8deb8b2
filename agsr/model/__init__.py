"""Networks and their weights files. Requires torch."""
