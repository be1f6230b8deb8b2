"""What ``agsr bench`` shows: tables on stdout, progress on stderr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from operator import itemgetter
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from agsr.bench.report.tables import failures, table1, tables, warnings
from agsr.cli.output.tables import bar_columns, stderr, stdout

if TYPE_CHECKING:
    from agsr.bench.report.comparison import Comparison
    from agsr.bench.report.tables import Table as TextTable
    from agsr.bench.runner.results import BenchResult
    from agsr.bench.runner.run import Notify

PIPE_WIDTH = 140
"""Columns of a table where there is no terminal."""


@contextmanager
def bench_progress() -> Iterator[Notify | None]:
    """A bar that says what runs, on terminals only."""
    console = stderr()
    if not console.is_terminal:
        yield None
        return
    share = TextColumn("{task.percentage:3.0f} %")
    what = TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis"))
    columns = (*bar_columns(console, 50), share, TimeElapsedColumn(), what)
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda what, share: bar.update(task, completed=share, description=escape(what))


def show_result(result: BenchResult) -> None:
    """All tables, then what did not run and why."""
    console = _console()
    for table in tables(result):
        _print(console, table)
    for line in failures(result):
        console.print(f"did not run: {line}")
    for line in warnings(result):
        console.print(f"warning: {line}")
    for line in result.notes:
        console.print(f"note: {line}")
    if not result.complete:
        stderr().print("interrupted: this is what was finished by then")


def show_table1(result: BenchResult) -> None:
    """The paper's table beside the measured rows."""
    console = _console()
    _print(console, table1(result))
    for line in failures(result):
        console.print(f"did not run: {line}")


def _console() -> Console:
    """stdout; wide unless a terminal limits it."""
    console = stdout()
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    return console


def _print(console: Console, table: TextTable, marks: tuple[str, ...] = ()) -> None:
    shown = Table(title=table.title, caption=table.caption, box=None, header_style="bold")
    for number, column in enumerate(table.columns):
        shown.add_column(column, justify="right" if number else "left", no_wrap=not number)
    for row in table.rows:
        shown.add_row(*row, style="red" if row[0] in marks else "")
    console.print(shown)
    console.print()


def show_comparison(comparison: Comparison, largest: float, largest_loss: float) -> bool:
    """Both kinds of change; whether anything is past its limit."""
    from agsr.bench.report.tables import comparison_tables

    console = _console()
    slower = [x.label for x in comparison.speed if x.regressed(largest)]
    worse = [x.label for x in comparison.quality if x.regressed(largest_loss)]
    for table in comparison_tables(comparison):
        _print(console, table, marks=(*slower, *worse))
    for label in comparison.missing:
        console.print(f"missing in the new run: {label}")
    for line in comparison.different:
        console.print(f"not compared: {line}")
    for label in slower:
        console.print(f"slower by more than {largest:.0%}: {label}")
    for label in worse:
        console.print(f"PSNR fell by more than {largest_loss} dB: {label}")
    for change in comparison.speed:
        if change.doubtful(largest):
            console.print(f"perhaps slower; use more --rounds to find out: {change.label}")
    nothing = not (comparison.speed or comparison.quality)
    if nothing:
        console.print("the two runs have nothing in common that could be compared")
    failed = bool(slower or worse or comparison.missing or comparison.different or nothing)
    console.print("worse than before" if failed else "no worse than before")
    return failed


def show_measured(result: BenchResult) -> None:
    """What each backend takes, and how many times that of the fastest; what failed says why."""
    done = sorted(
        ((row.timings[0].median, row) for row in result.rows if row.timings), key=itemgetter(0)
    )
    table = Table("", "start s", "320x180 ms", "noise ±", "ratio", box=None)
    for seconds, row in done:
        name = f"{row.entry.backend} {row.entry.precision}"
        noise = f"{row.timings[0].noise:.0%}"
        start = f"{row.load_seconds or 0:.2f}"
        table.add_row(name, start, f"{seconds * 1e3:.0f}", noise, f"{seconds / done[0][0]:.2f}")
    console = stdout()
    console.print(table)
    for row in result.rows:
        if row.error:
            console.print(f"{row.entry.label}: {row.error}")
