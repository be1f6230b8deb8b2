"""The command line: one module per command.

Only this package and `agsr.serve` import engines, export and bench.
"""

from agsr.cli.app import main

__all__ = ["main"]
