"""The networks at hand as a table, for ``agsr models`` and ``agsr doctor MODEL``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.table import Table

from agsr.cli.output.tables import stdout

if TYPE_CHECKING:
    from agsr.engines.community.library import ModelEntry

_COLUMNS = ("name", "scale", "architecture", "precision", "backends", "licence")


def show_models(entries: Iterable[ModelEntry]) -> None:
    """Print the networks, one a line, and below them what is wrong with any."""
    entries = list(entries)
    table = Table(*_COLUMNS, box=None)
    for entry in entries:
        scale = "" if entry.scale is None else f"×{entry.scale}"
        joined = (", ".join(words) for words in (entry.precisions, entry.backends))
        table.add_row(entry.name, scale, entry.architecture, *joined, entry.licence)
    console = stdout()
    console.print(table)
    for problem in filter(None, (entry.problem for entry in entries)):
        console.print(problem)
