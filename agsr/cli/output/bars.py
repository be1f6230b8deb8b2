"""The bars of ``agsr infer``, by rich; apart from the rest, since only terminals need them.

They fit into one line of the terminal: where it is narrow, the bar becomes short, then goes.
"""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.progress import Progress as Bar
from rich.progress import (
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
)
from rich.table import Column
from rich.text import Text

from agsr.cli.output.tables import bar_columns, stderr


def files_bar(total: float, describe: Callable[[bool], str], console: Console | None = None) -> Bar:
    """A bar with one task.

    Args:
        total: Of the work.
        describe: Called for the text behind the bar; with True for a short one.
        console: stderr, where none is given.
    """
    console = console or stderr()
    room = 46  # percentage, and text like "1000/1000 files  10.5 files/min  10 min left"
    columns = (*bar_columns(console, room), TaskProgressColumn(table_column=_LINE))
    text = _Description(describe, console)
    bar = Bar(*columns, text, console=console, transient=True)
    bar.add_task("", total=total)
    return bar


def frames_bar(console: Console | None = None) -> Bar:
    """A bar with one task: a video's frames, with the field ``text`` behind it."""
    console = console or stderr()
    columns = (*bar_columns(console, 50), TaskProgressColumn(table_column=_LINE))
    text = TextColumn("{task.fields[text]}", table_column=_SHORTENED)
    bar = Bar(*columns, text, console=console, transient=True)
    bar.add_task("", total=None, text="")
    return bar


_LINE = Column(no_wrap=True)
_SHORTENED = Column(no_wrap=True, overflow="ellipsis")


class _Description(ProgressColumn):
    def __init__(self, describe: Callable[[bool], str], console: Console) -> None:
        super().__init__(table_column=_SHORTENED)
        self._describe, self._console = describe, console

    def render(self, _: Task) -> Text:
        return Text(self._describe(self._console.width < _WIDE))


_WIDE = 60
"""Columns from which there is room for all figures."""
