"""What a benchmark found: results as JSON, tables, plots, crops, HTML, and comparisons."""
