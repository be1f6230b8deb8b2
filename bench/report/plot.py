"""Plot of quality against time: a line per backend, a point per step count.

Weights are trained for different aims, so the Pareto front is drawn for each of them.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agsr.bench.runner.measurements import Timing
from agsr.bench.runner.results import BenchResult, Row
from agsr.errors import DatasetError
from agsr.system.atomic_file import complete_file
from agsr.system.optional_import import require

INK = "#010203"
"""Colour of text and axes, used for nothing else: a page can replace it with its text colour."""

_STYLE: dict[Any, Any] = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "agsr",
    "text.color": INK,
    "text.parse_math": False,  # a file name may contain dollars
    "xtick.color": INK,
    "ytick.color": INK,
}


@dataclass(frozen=True)
class Point:
    """One row in the plane of time and quality.

    >>> fast, slow = Point("a", 1, 10.0, 28.0), Point("a", 4, 30.0, 28.5)
    >>> pareto([slow, fast, Point("b", 4, 60.0, 28.2)]) == {"": [fast, slow]}
    True
    """

    line: str
    """Backend, weights and precision; points of one line differ in steps."""
    steps: int | None
    """Time steps; None for a network without steps."""
    milliseconds: float
    """Median time of the workload."""
    psnr: float
    """Mean PSNR-Y, dB."""
    weights: str = ""
    """Weights; fronts are drawn for each, as different weights have different aims."""
    noise: float = 0.0
    """Noise of the time to each side, as a share of it."""


def points(result: BenchResult) -> list[Point]:
    """Return the networks with both a score and a time, on the first set and workload of the first
    of them. A row that failed on either has no point."""
    rows = _scored_and_timed(result)
    return [
        Point(
            line=_line(row),
            steps=row.steps,
            milliseconds=timing.median * 1e3,
            psnr=score.mean.psnr,
            weights=row.entry.weights,
            noise=timing.noise,
        )
        for row in rows
        for score in row.quality
        for timing in row.timings
        if score.set == rows[0].quality[0].set and _job(timing) == _job(rows[0].timings[0])
    ]


def _scored_and_timed(result: BenchResult) -> list[Row]:
    return [row for row in result.rows if row.quality and row.timings and row.entry.is_network]


def _job(timing: Timing) -> tuple[str, str]:
    return timing.workload, timing.boundary


EQUAL = 0.001
"""PSNR differences up to this, in dB, are rounding."""


def pareto(found: Sequence[Point]) -> dict[str, list[Point]]:
    """Return the Pareto front for each weights, fastest first.

    Points whose times can't be distinguished beyond the noise are equally fast, and scores that
    differ by rounding only are equal; see `Dominance`.
    """
    fronts: dict[str, list[Point]] = {}
    for weights in dict.fromkeys(point.weights for point in found):
        points = sorted((p for p in found if p.weights == weights), key=_by_time)
        order = Dominance(points)
        fronts[weights] = [p for p in points if not any(order.dominates(q, p) for q in points)]
    return fronts


class Dominance:
    """A strict partial order of points: better in speed or quality, and worse in neither.

    Speed and quality are ranks within the points: a rank holds all points that are equal to its
    best one. That makes equality transitive, which "within the noise of each other" is not.

    Args:
        points: All points to compare.
    """

    def __init__(self, points: Sequence[Point]) -> None:
        by_quality = sorted(points, key=lambda point: -point.psnr)
        self._slowness = _ranks(sorted(points, key=_by_time), _is_as_fast)
        self._loss = _ranks(by_quality, lambda best, other: best.psnr - other.psnr <= EQUAL)

    def dominates(self, one: Point, other: Point) -> bool:
        """Return True if one point is the better choice; with equal ranks, the faster one is."""
        mine = self._slowness[one], self._loss[one]
        theirs = self._slowness[other], self._loss[other]
        if mine == theirs:
            return _by_time(one) < _by_time(other)
        return all(a <= b for a, b in zip(mine, theirs, strict=True))


def _ranks(points: Sequence[Point], is_equal: Callable[[Point, Point], bool]) -> dict[Point, int]:
    """Return the rank of each point, from 0; one that differs from a rank's first starts a rank.

    Args:
        points: The best first.
        is_equal: Called with a rank's first point and a later one.
    """
    ranks: dict[Point, int] = {}
    firsts: list[Point] = []
    for point in points:
        if not firsts or not is_equal(firsts[-1], point):
            firsts.append(point)
        ranks[point] = len(firsts) - 1
    return ranks


def _by_time(point: Point) -> tuple[float, float]:
    return point.milliseconds, -point.psnr


def _is_as_fast(first: Point, other: Point) -> bool:
    """Return True if the noise of two times overlaps; ``first`` has the shorter one."""
    fastest = other.milliseconds * (1 - min(other.noise, 1.0))
    return fastest <= first.milliseconds * (1 + first.noise)


def save_plot(result: BenchResult, path: Path) -> None:
    """Write the plot in the format of the suffix, ``.svg``, ``.png`` or ``.pdf``; black on white.

    Raises:
        DatasetError: No row has both a score and a time.
        MissingDependencyError: matplotlib is not installed.
    """
    with complete_file(path) as temporary:
        _draw(result, temporary, path.suffix.removeprefix("."), facecolor="white")


def inline_svg(result: BenchResult) -> str:
    """Return the plot as an SVG element in the page's text colour; raises like `save_plot`."""
    file = io.StringIO()
    _draw(result, file, "svg", facecolor="none")
    text = file.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor")


def _draw(result: BenchResult, file: Path | io.StringIO, kind: str, facecolor: str) -> None:
    require("matplotlib", extra="bench", purpose="Plotting")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    found = points(result)
    if not found:
        raise DatasetError("nothing to plot: no row has both a score (--set) and a time (--rounds)")
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        axes = figure.subplots()
        for name in dict.fromkeys(point.line for point in found):
            _draw_line(axes, [point for point in found if point.line == name])
        _draw_fronts(axes, found)
        _label(axes, result)
        metadata = {"Date": None} if kind == "svg" else None  # reproducible files
        figure.savefig(file, format=kind, dpi=160, facecolor=facecolor, metadata=metadata)


def _draw_fronts(axes: Any, found: Sequence[Point]) -> None:
    """Draw a broad line along the Pareto front of each weights."""
    label: str | None = "best choices of each weights"
    for front in pareto(found).values():
        times, scores = [p.milliseconds for p in front], [p.psnr for p in front]
        broad = {"linewidth": 5, "marker": "o", "markersize": 11, "markeredgewidth": 0}
        axes.plot(times, scores, color=INK, alpha=0.2, zorder=0, label=label, **broad)
        label = None


def _draw_line(axes: Any, line: Sequence[Point]) -> None:
    times, scores = [p.milliseconds for p in line], [p.psnr for p in line]
    noise = [min(p.noise, 0.9) * p.milliseconds for p in line]
    axes.errorbar(times, scores, xerr=noise, marker="o", elinewidth=1, label=line[0].line)
    for point in line:
        place = (point.milliseconds, point.psnr)
        axes.annotate(
            str(point.steps or ""), place, xytext=(0, 6), textcoords="offset points", ha="center"
        )


def _label(axes: Any, result: BenchResult) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    row = _scored_and_timed(result)[0]
    axes.set_xlabel(f"median time of {row.timings[0].workload}, ms")
    axes.set_ylabel(f"PSNR-Y on {row.quality[0].set}, dB")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(alpha=0.2)
    axes.margins(y=0.15)
    axes.legend(title="numbers are time steps", loc="best")


def _line(row: Row) -> str:
    """Name a line; paths include their folder, which may be the only difference between files."""
    return " ".join((row.entry.backend, row.entry.weights, row.precision))
