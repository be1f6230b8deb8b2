"""Image formats: one module per format and task, and the table of writable formats."""
