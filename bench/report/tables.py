"""A benchmark's result as tables of text, for the terminal, Markdown and HTML alike."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from agsr.bench.report.comparison import CONFIDENCE, Comparison, SpeedChange
from agsr.bench.runner.results import BenchResult, Row, SetScore, Timing

NOTHING = "–"
"""Where there is no figure."""

_BICUBIC = "Bicubic is MATLAB's, bit for bit, in numpy: a yardstick of quality, not of speed."

_BOUNDARIES = {
    "host": "from numpy array to numpy array",
    "device": "on the device, without copies to and from it",
}


_YARDSTICKS = {
    True: "Times are relative to a matrix product that both runs measured in the same rounds.",
    False: "* The runs share no product: a slower machine looks like a slower program.",
}


@dataclass(frozen=True)
class Table:
    """A table of text. The first column holds names, the others figures."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""

    def to_markdown(self) -> str:
        """GitHub's Markdown."""
        cells = [tuple(_escaped(cell) for cell in row) for row in (self.columns, *self.rows)]
        rule = ("---", *(["---:"] * (len(self.columns) - 1)))
        lines = [f"| {' | '.join(row)} |" for row in (cells[0], rule, *cells[1:])]
        caption = [f"\n{self.caption}"] if self.caption else []
        return "\n".join([f"**{self.title}**\n", *lines, *caption])


def tables(result: BenchResult) -> list[Table]:
    """All tables of a result: quality by set, speed by workload, what it costs to start."""
    sets = dict.fromkeys(score.set for row in result.rows for score in row.quality)
    jobs = dict.fromkeys((t.workload, t.boundary) for row in result.rows for t in row.timings)
    return [
        *(_quality(result, name) for name in sets),
        *(_speed(result, *job) for job in jobs),
        *([_costs(result)] if jobs else []),
    ]


def failures(result: BenchResult) -> list[str]:
    """A line per reason why something didn't run, with all it kept from running."""
    failed = sorted((row for row in result.rows if row.error), key=lambda row: row.error)
    return [
        f"{', '.join(row.contender.label for row in rows)}: {error}"
        for error, rows in itertools.groupby(failed, key=lambda row: row.error)
    ]


LARGEST_NOISE = 0.1
"""Noise up to this needs no warning."""


def warnings(result: BenchResult) -> list[str]:
    """A line per reason to doubt the times."""
    timings = [(row, timing) for row in result.rows for timing in row.timings]
    noisy = [(timing.noise, row, timing) for row, timing in timings if len(timing.rounds) > 1]
    noisy = [found for found in noisy if found[0] > LARGEST_NOISE]
    lines = []
    if noisy:
        noise, row, timing = max(noisy, key=lambda found: found[0])
        lines.append(
            f"{len(noisy)} of {len(timings)} times have noise above {LARGEST_NOISE:.0%}, up to "
            f"±{noise:.0%} ({row.contender.label} on {timing.workload}): other programs ran, or "
            "the times are too short; close them, or use a larger --size and more --rounds"
        )
    shares = [result.share(row, timing) or 0.0 for row, timing in timings]
    if max(shares, default=0.0) > 1:
        lines.append(
            f"{max(shares):.0%} of the limit: the matrix product was disturbed, or a library's "
            "convolutions need fewer operations than are counted; shares are no measure here"
        )
    return lines


def comparison_tables(comparison: Comparison) -> list[Table]:
    """What changed, as text."""
    speed = tuple(
        (x.label, _ratio(x), _interval(x), f"{x.raw_ratio:.3f}") for x in comparison.speed
    )
    quality = tuple((x.label, f"{x.psnr:+.4f}", f"{x.ssim:+.5f}") for x in comparison.quality)
    columns = ("", "time, new / old", f"{CONFIDENCE:.0%} interval", "not normalised")
    return [
        *([Table("Speed", columns, speed, _yardsticks(comparison))] if speed else []),
        *([Table("Quality", ("", "PSNR-Y dB", "SSIM-Y"), quality)] if quality else []),
    ]


def _yardsticks(comparison: Comparison) -> str:
    """What the times are relative to."""
    kinds = {change.normalised for change in comparison.speed}
    return " ".join(text for kind, text in _YARDSTICKS.items() if kind in kinds)


def _ratio(change: SpeedChange) -> str:
    return f"{change.ratio:.3f}" + " *" * (not change.normalised)


def _interval(change: SpeedChange) -> str:
    return f"{change.low:.3f} to {change.high:.3f}" if change.low else "too few rounds"


def to_markdown(result: BenchResult) -> str:
    """The whole result as Markdown."""
    facts = "\n".join(f"- {name}: {found}" for name, found in result.environment.items())
    parts = [f"`{result.command}`, {result.created}"]
    parts += [] if result.complete else ["Interrupted: what was finished by then."]
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
        (row.contender.label, *_scores(score, perceptual), *(_parity(score) if compared else ()))
        for row, score in found
    )
    reference = f". Levels of 255 off {result.reference}." if compared else "."
    title = f"{name}, quality{_share_used(found[0][1])}"
    return Table(title, ("", *columns), rows, result.protocol + reference)


def _share_used(score: SetScore) -> str:
    """How many images a mean is over, where some of the set can't be used."""
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
    # Not "-0.0000": adding 0 takes the sign of what is rounded to nothing.
    change = round(parity.psnr_change, 4) + 0.0
    return f"{parity.mean:.1e}", f"{parity.largest:.1e}", f"{change:+.4f}" if change else "0"


def _speed(result: BenchResult, workload: str, boundary: str) -> Table:
    rows = tuple(
        (row.contender.label, *_times(timing), _figure(result.share(row, timing), "{:.0%}"))
        for row in result.rows
        for timing in row.timings
        if (timing.workload, timing.boundary) == (workload, boundary)
    )
    columns = ("", "median ms", "p95", "p99", "noise ±", "images/s", "output MP/s", "of the limit")
    caption = f"Timed {_BOUNDARIES[boundary]}. {_BICUBIC} {_limits(result)}"
    return Table(f"{workload}, speed", columns, rows, caption.strip())


def _times(timing: Timing) -> list[str]:
    found = timing.summary()
    times = [f"{found[name] * 1e3:.1f}" for name in ("median", "p95", "p99")]
    rates = [f"{found[name]:.2f}" for name in ("images_per_second", "output_megapixels_per_second")]
    noise = f"{found['noise']:.0%}" if len(timing.rounds) > 1 else NOTHING
    return [*times, noise, *rates]


def _limits(result: BenchResult) -> str:
    """The fastest product of each kind of arithmetic."""
    best = {id(limit): limit for limit in map(result.limit, result.rows) if limit}
    found = (
        f"{limit.rate / 1e12:.2f} TFLOP/s in {limit.precision} ({limit.library})"
        for limit in best.values()
    )
    text = ", ".join(found)
    return f"The limit is that of a large matrix product in the same rounds: {text}." * bool(text)


def _costs(result: BenchResult) -> Table:
    rows = tuple(
        (row.contender.label, row.device, row.precision, *_cost(row))
        for row in result.rows
        if row.device
    )
    columns = ("", "runs on", "precision", "load ms", "first call ms", "memory MB", "device MB")
    caption = (
        "Load includes the imports; the first call is on the first image that is scored, or "
        "without sets on the first workload; memory is the largest of each row's own process."
    )
    return Table("What a start costs", columns, rows, caption)


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
