"""The bars of ``agsr infer``, by rich; apart from the rest, since only terminals need them."""

from __future__ import annotations

from rich.progress import (
    BarColumn,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar
from rich.text import Text

from agsr.console import stderr


def files_bar(files: int) -> Bar:
    """A bar with one task: so many files."""
    many = (_FilesColumn(), _RateColumn()) if files > 1 else ()
    columns = (BarColumn(), TaskProgressColumn(), *many, TimeRemainingColumn())
    bar = Bar(*columns, console=stderr(), transient=True)
    bar.add_task("", total=float(files))
    return bar


def frames_bar() -> Bar:
    """A bar with one task: a video's frames, of which the field ``told`` tells."""
    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[told]}"))
    bar = Bar(*columns, console=stderr(), transient=True)
    bar.add_task("", total=None, told="")
    return bar


class _FilesColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{int(task.completed)}/{int(task.total or 0)} files")


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if not task.speed else f"{60 * task.speed:.1f} files/min")
