"""The files a benchmark writes: what would fail is told before the run, not after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agsr.bench.report.crops import Gallery
from agsr.bench.report.tables import to_markdown
from agsr.bench.runner.results import BenchResult
from agsr.errors import ImageRequestError
from agsr.system.atomic_file import check_writable, complete_file
from agsr.system.optional_import import require

PLOT_SUFFIXES = (".svg", ".png", ".pdf")
"""Formats of a plot."""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Where to write a result; None for nowhere."""

    json: Path | None = None
    """Everything, raw samples too."""
    markdown: Path | None = None
    """The tables."""
    html: Path | None = None
    """The report."""
    plot: Path | None = None
    """Quality against time."""

    def check(self) -> None:
        """Find out whether `write` will be able to begin.

        Raises:
            ImageRequestError: The plot's name has another suffix than `PLOT_SUFFIXES`.
            MissingDependencyError: What draws is not installed.
            OSError: A folder can't be written.
        """
        if self.plot and self.plot.suffix not in PLOT_SUFFIXES:
            raise ImageRequestError(f"{self.plot}: expected a name in {', '.join(PLOT_SUFFIXES)}")
        if self.html:
            require("jinja2", extra="bench", purpose="The HTML report")
        if self.html or self.plot:
            require("matplotlib", extra="bench", purpose="Plotting")
        for path in self.paths:
            check_writable(path)

    @property
    def paths(self) -> list[Path]:
        """All files that are wanted."""
        return [p for p in (self.json, self.markdown, self.html, self.plot) if p]

    def write(self, result: BenchResult, gallery: Gallery) -> list[str]:
        """Write all, the raw figures first.

        Returns:
            What an interrupted run has too little for, and why.

        Raises:
            DatasetError: A complete run has nothing to plot.
        """
        _write(self.json, result.to_json)
        _write(self.markdown, lambda: to_markdown(result))
        if self.html:
            from agsr.bench.report.html import to_html

            _write(self.html, lambda: to_html(result, gallery))
        if self.plot:
            from agsr.bench.report.plot import points, save_plot

            if not result.complete and not points(result):
                return [f"{self.plot} is left out: nothing to plot yet"]
            save_plot(result, self.plot)
        return []


def _write(path: Path | None, text: Callable[[], str]) -> None:
    if path is not None:
        with complete_file(path) as temporary:
            temporary.write_text(text(), encoding="utf-8")
