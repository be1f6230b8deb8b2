"""Text tables of a result, for the terminal, Markdown and HTML, and the paper's Table 1."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from agsr.bench.report.comparison import CONFIDENCE, Comparison, SpeedChange
from agsr.bench.runner.measurements import SetScore, Timing
from agsr.bench.runner.results import BenchResult, Row
from agsr.bench.scoring import Scores

NOTHING = "–"
"""Cell without a figure."""

_BICUBIC = "Bicubic is MATLAB's, bit for bit, in numpy: a baseline of quality, not of speed."

_BOUNDARIES = {
    "host": "from numpy array to numpy array",
    "device": "on the device, without copies to and from it",
}


_YARDSTICKS = {
    True: "Times are relative to a matrix product that both runs measured in the same rounds.",
    False: "* The runs have no product in common: a slower machine looks like a slower program.",
}


@dataclass(frozen=True)
class Table:
    """A table of text: names in the first column, figures in the others.

    >>> print(Table("Sizes", ("", "MB"), (("psnr", "1.4"),)).to_markdown())
    **Sizes**
    <BLANKLINE>
    |  | MB |
    | --- | ---: |
    | psnr | 1.4 |
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""

    def to_markdown(self) -> str:
        """Format the table as GitHub-flavoured Markdown."""
        cells = [tuple(_escaped(cell) for cell in row) for row in (self.columns, *self.rows)]
        rule = ("---", *(["---:"] * (len(self.columns) - 1)))
        lines = [f"| {' | '.join(row)} |" for row in (cells[0], rule, *cells[1:])]
        caption = [f"\n{self.caption}"] if self.caption else []
        return "\n".join([f"**{self.title}**\n", *lines, *caption])


def tables(result: BenchResult) -> list[Table]:
    """Return all tables of a result: quality by set, speed by workload, start-up cost."""
    sets = dict.fromkeys(score.set for row in result.rows for score in row.quality)
    jobs = dict.fromkeys((t.workload, t.boundary) for row in result.rows for t in row.timings)
    return [
        *(_quality(result, name) for name in sets),
        *(_speed(result, *job) for job in jobs),
        *([_costs(result)] if jobs else []),
    ]


def failures(result: BenchResult) -> list[str]:
    """Return one line per reason for a failure, with all rows that failed for it."""
    failed = sorted((row for row in result.rows if row.error), key=lambda row: row.error)
    return [
        f"{', '.join(row.entry.label for row in rows)}: {error}"
        for error, rows in itertools.groupby(failed, key=lambda row: row.error)
    ]


LARGEST_NOISE = 0.1
"""Noise above this is reported."""


def warnings(result: BenchResult) -> list[str]:
    """Return one line per reason to doubt the times."""
    timings = [(row, timing) for row in result.rows for timing in row.timings]
    noisy = [(timing.noise, row, timing) for row, timing in timings if len(timing.rounds) > 1]
    noisy = [found for found in noisy if found[0] > LARGEST_NOISE]
    lines = []
    if noisy:
        noise, row, timing = max(noisy, key=lambda found: found[0])
        lines.append(
            f"{len(noisy)} of {len(timings)} times have noise above {LARGEST_NOISE:.0%}, up to "
            f"±{noise:.0%} ({row.entry.label} on {timing.workload}): other programs ran, or "
            "the times are too short; close them, or use a larger --size and more --rounds"
        )
    shares = [result.share(row, timing) or 0.0 for row, timing in timings]
    if max(shares, default=0.0) > 1:
        lines.append(
            f"{max(shares):.0%} of peak: the matrix product was disturbed, or a library's "
            "convolutions need fewer operations than are counted; the shares are meaningless here"
        )
    return lines


def comparison_tables(comparison: Comparison) -> list[Table]:
    """Return the tables of a comparison."""
    speed = tuple(
        (x.label, _ratio(x), _interval(x), f"{x.raw_ratio:.3f}") for x in comparison.speed
    )
    quality = tuple((x.label, f"{x.psnr:+.4f}", f"{x.ssim:+.5f}") for x in comparison.quality)
    columns = ("", "time, new / old", f"{CONFIDENCE:.0%} interval", "not normalized")
    return [
        *([Table("Speed", columns, speed, _yardsticks(comparison))] if speed else []),
        *([Table("Quality", ("", "PSNR-Y dB", "SSIM-Y"), quality)] if quality else []),
    ]


def _yardsticks(comparison: Comparison) -> str:
    """Explain what the times are relative to."""
    kinds = {change.normalized for change in comparison.speed}
    return " ".join(text for kind, text in _YARDSTICKS.items() if kind in kinds)


def _ratio(change: SpeedChange) -> str:
    return f"{change.ratio:.3f}" + " *" * (not change.normalized)


def _interval(change: SpeedChange) -> str:
    return f"{change.low:.3f} to {change.high:.3f}" if change.low else "too few rounds"


def to_markdown(result: BenchResult) -> str:
    """Format the whole result as Markdown."""
    facts = "\n".join(f"- {name}: {found}" for name, found in result.environment.items())
    parts = [f"`{result.command}`, {result.created}"]
    parts += [] if result.complete else ["Interrupted: only what was finished."]
    parts += [table.to_markdown() for table in tables(result)]
    remarks = (*failures(result), *warnings(result), *result.notes)
    parts += ["\n".join(f"- {line}" for line in remarks)]
    return "\n\n".join([*filter(None, parts), facts]) + "\n"


def _quality(result: BenchResult, name: str) -> Table:
    found = [(row, score) for row in result.rows for score in row.quality if score.set == name]
    perceptual = any(score.mean.lpips is not None for _, score in found)
    compared = any(score.parity for _, score in found)
    columns = ["PSNR-Y dB", "SSIM-Y", *(["LPIPS"] if perceptual else [])]
    columns += ["mean level off", "largest", "PSNR off"] if compared else []
    rows = tuple(
        (row.entry.label, *_scores(score, perceptual), *(_parity(score) if compared else ()))
        for row, score in found
    )
    reference = f". Levels of 255 off {result.reference}." if compared else "."
    title = f"{name}, quality{_share_used(found[0][1])}"
    return Table(title, ("", *columns), rows, result.protocol + reference)


def _share_used(score: SetScore) -> str:
    """Return the number of images in a mean if some of the set are unusable."""
    if not score.skipped:
        return ""
    count = len(score.images)
    return f", mean of {count} of {count + len(score.skipped)} images"


def _scores(score: SetScore, perceptual: bool) -> list[str]:
    mean = score.mean
    lpips = [_figure(mean.lpips, "{:.4f}")] if perceptual else []
    return [f"{mean.psnr:.3f}", f"{mean.ssim:.4f}", *lpips]


def _parity(score: SetScore) -> tuple[str, ...]:
    parity = score.parity
    if parity is None:
        return (NOTHING,) * 3
    # Adding 0 avoids "-0.0000".
    change = round(parity.psnr_change, 4) + 0.0
    return f"{parity.mean:.1e}", f"{parity.largest:.1e}", f"{change:+.4f}" if change else "0"


def _speed(result: BenchResult, workload: str, boundary: str) -> Table:
    rows = tuple(
        (row.entry.label, *_times(timing), _figure(result.share(row, timing), "{:.0%}"))
        for row in result.rows
        for timing in row.timings
        if (timing.workload, timing.boundary) == (workload, boundary)
    )
    columns = ("", "median ms", "p95", "p99", "noise ±", "images/s", "output MP/s", "of peak")
    caption = f"Timed {_BOUNDARIES[boundary]}. {_BICUBIC} {_peaks(result)}"
    return Table(f"{workload}, speed", columns, rows, caption.strip())


def _times(timing: Timing) -> list[str]:
    found = timing.summary()
    times = [f"{found[name] * 1e3:.1f}" for name in ("median", "p95", "p99")]
    rates = [f"{found[name]:.2f}" for name in ("images_per_second", "output_megapixels_per_second")]
    noise = f"{found['noise']:.0%}" if len(timing.rounds) > 1 else NOTHING
    return [*times, noise, *rates]


def _peaks(result: BenchResult) -> str:
    """Describe the fastest product of each precision."""
    best = {id(peak): peak for peak in map(result.peak, result.rows) if peak}
    found = (
        f"{peak.rate / 1e12:.2f} TFLOP/s in {peak.precision} ({peak.library})"
        for peak in best.values()
    )
    text = ", ".join(found)
    return f"Peak is that of a large matrix product in the same rounds: {text}." * bool(text)


def _costs(result: BenchResult) -> Table:
    rows = tuple(
        (row.entry.label, row.device, row.precision, *_cost(row))
        for row in result.rows
        if row.device
    )
    columns = ("", "runs on", "precision", "load ms", "first call ms", "memory MB", "device MB")
    caption = (
        "Load includes imports; the first call runs on the first scored image, or without sets on "
        "the first workload; memory is the peak of each row's process."
    )
    return Table("Start-up cost", columns, rows, caption)


def _cost(row: Row) -> list[str]:
    def scaled(value: float | None, factor: float) -> str:
        return _figure(None if value is None else value * factor, "{:.0f}")

    return [
        scaled(row.load_seconds, 1e3),
        scaled(row.first_call_seconds, 1e3),
        scaled(row.peak_memory, 1e-6),
        scaled(row.device_memory, 1e-6),
    ]


def _figure(value: float | None, form: str) -> str:
    return NOTHING if value is None else form.format(value)


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


TABLE1_SETS = ("Set5", "Set14", "BSD100")
"""Columns of the paper's Table 1."""

TABLE1_PRINTED: dict[str, tuple[tuple[float, float], ...]] = {
    "Bicubic": ((24.72, 0.695), (22.56, 0.613), (24.99, 0.704)),
    "SRCNN": ((25.83, 0.811), (23.16, 0.726), (25.49, 0.785)),
    "SRGAN": ((29.24, 0.841), (27.46, 0.822), (28.81, 0.836)),
    "the paper's": ((31.62, 0.903), (29.37, 0.865), (30.19, 0.872)),
}
"""Rows of Table 1 as printed: PSNR in dB and SSIM, by set."""

TABLE1_CAPTION = (
    "PSNR in dB / SSIM. Rows marked * are as printed in the paper. Its protocol can't be "
    "identified (no common pair of filters reproduces its Bicubic row), so they can't be compared "
    "with the measured ones. Measured: "
)


def table1(result: BenchResult) -> Table:
    """Return the paper's Table 1: measured rows first, then the printed ones, marked."""
    measured = [
        (_table1_name(row), *(_table1_cell(_mean(row, name)) for name in TABLE1_SETS))
        for row in result.rows
        if row.quality
    ]
    printed = [
        (f"{name} *", *(f"{psnr:.2f} / {ssim:.3f}" for psnr, ssim in scores))
        for name, scores in TABLE1_PRINTED.items()
    ]
    caption = TABLE1_CAPTION + result.protocol
    return Table("Table 1", ("", *TABLE1_SETS), (*measured, *printed), caption)


def _table1_name(row: Row) -> str:
    return row.entry.label if row.entry.is_network else "Bicubic"


def _mean(row: Row, name: str) -> Scores | None:
    return next((score.mean for score in row.quality if score.set == name), None)


def _table1_cell(scores: Scores | None) -> str:
    return f"{scores.psnr:.2f} / {scores.ssim:.3f}" if scores else NOTHING
