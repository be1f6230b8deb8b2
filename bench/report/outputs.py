"""Output files of a benchmark, checked before the run and written after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agsr.bench.report.crops import CropCollector
from agsr.bench.report.tables import to_markdown
from agsr.bench.runner.results import BenchResult
from agsr.errors import ImageRequestError
from agsr.system.atomic_file import check_writable, complete_file
from agsr.system.optional_import import require

PLOT_SUFFIXES = (".svg", ".png", ".pdf")
"""Supported plot formats."""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Paths of the output files; None skips one."""

    json: Path | None = None
    """The whole result, including raw samples."""
    markdown: Path | None = None
    """The tables."""
    html: Path | None = None
    """The report."""
    plot: Path | None = None
    """The plot of quality against time."""

    def check(self) -> None:
        """Check before the run that `write` can succeed.

        Raises:
            ImageRequestError: The suffix of the plot is not in `PLOT_SUFFIXES`.
            MissingDependencyError: jinja2 or matplotlib is needed and not installed.
            OSError: A file can't be written.
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
        """Paths of all requested files."""
        return [p for p in (self.json, self.markdown, self.html, self.plot) if p]

    def write(self, result: BenchResult, crops: CropCollector) -> list[str]:
        """Write all files, the JSON first.

        Returns:
            Warnings about files that an interrupted run has too little data for.

        Raises:
            DatasetError: A complete run has no data to plot.
        """
        _write(self.json, result.to_json)
        _write(self.markdown, lambda: to_markdown(result))
        if self.html:
            from agsr.bench.report.html import to_html

            _write(self.html, lambda: to_html(result, crops))
        if self.plot:
            from agsr.bench.report.plot import points, save_plot

            if not result.complete and not points(result):
                return [f"{self.plot}: not written, nothing to plot yet"]
            save_plot(result, self.plot)
        return []


def _write(path: Path | None, text: Callable[[], str]) -> None:
    if path is not None:
        with complete_file(path) as temporary:
            temporary.write_text(text(), encoding="utf-8")
