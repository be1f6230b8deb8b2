"""What the command line shows: tables on stdout, progress on stderr, by rich."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Column, Table

from agsr.errors import AgsrError
from agsr.store.address import Location, to_location
from agsr.system.progress import Progress
from agsr.system.signals import BOTH, Terminated, handled
from agsr.system.text import counted

if TYPE_CHECKING:
    from agsr.bench.data.sets import ImageSet
    from agsr.bench.installed import Check
    from agsr.bench.scoring import QualityReport, QualityRow
    from agsr.contract import ModelMetadata
    from agsr.engines.runtimes.compiled_cache import CompiledEntry
    from agsr.engines.tensorrt.engine_cache import EngineEntry
    from agsr.engines.tensorrt.options import BuildReport
    from agsr.export import ExportReport
    from agsr.export.verify import ParityRow
    from agsr.system.cache_files import CacheEntry

_T = TypeVar("_T")


def stdout() -> Console:
    """Where data goes. Names are shown as they are: no markup in brackets, no emoji by colons."""
    return Console(soft_wrap=True, highlight=False, markup=False, emoji=False)


def stderr(*, quiet: bool = False) -> Console:
    """Where progress and messages go."""
    return Console(
        stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False, quiet=quiet
    )


def bar_columns(console: Console, room: int) -> list[BarColumn]:
    """A bar as wide as the terminal allows beside ``room`` columns of text, or none at all."""
    width = min(40, console.width - room)
    return [BarColumn(bar_width=width)] if width >= 4 else []


def plain_bar(room: int = 45, console: Console | None = None) -> Bar:
    """A bar on stderr, on terminals only, that fits into one line beside ``room`` columns."""
    console = console or stderr()
    what = TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis"))
    times = (TaskProgressColumn(), TimeRemainingColumn())
    columns = (what, *bar_columns(console, room), *times)
    return Bar(*columns, console=console, transient=True, disable=not console.is_terminal)


def tracked(items: Iterable[_T], name: str, total: int) -> Iterator[_T]:
    """The items, with a bar on stderr while they are made."""
    with plain_bar(20 + len(name)) as bar:
        yield from bar.track(items, total=total, description=escape(name))


def open_sets(
    names: Sequence[str], data: Location | None, *, fetch: bool, use_lr: bool, scale: int
) -> list[ImageSet]:
    """Open test sets for networks of a scale, by name, path or address; a bar shows fetching.

    Of a data folder on a server, the sets that are named are copied here.
    """
    from agsr.bench.data.sets import find_set
    from agsr.store.mirror import fetched

    parts = [part for name in names for part in _parts(name)]
    folder = None if data is None or not parts else fetched(data, only=parts)
    sources = {part: str(fetched(to_location(part))) for part in parts if "://" in part}
    with plain_bar() as bar:

        def find(name: str) -> ImageSet:
            task = bar.add_task(f"fetching {escape(name)}", total=None, visible=False)

            def report(progress: Progress) -> None:
                done, total = progress.done, progress.total or 0
                bar.update(task, completed=done, total=total, visible=done < total)

            options: dict[str, Any] = {"fetch": fetch, "use_lr": use_lr, "scale": scale}
            return find_set(sources.get(name, name), folder, progress=report, **options)

        found = (find(part) for part in parts)
        return list(dict.fromkeys(found))  # one that was named twice is opened once


def _parts(name: str) -> list[str]:
    """Several names with commas between them; a folder's path may hold a comma, too."""
    return [name] if "://" in name or Path(name).is_dir() else name.split(",")


def show_export(report: ExportReport) -> None:
    """Where the file is, what is in it, and how far it is from torch."""
    meta = report.metadata
    table = Table("input shape", "largest difference", "mean", box=None)
    for row in report.parity:
        batch, height, width = row.shape
        table.add_row(f"{batch}x3x{height}x{width}", f"{row.largest:.1e}", f"{row.mean:.1e}")
    console = stdout()
    console.print(
        f"{report.path}  {report.size / 1e6:.2f} MB, {_network(meta)}, {meta.precision}, "
        f"opset {report.opset}, {sum(report.operators.values())} nodes"
    )
    console.print(table)
    found = report.fidelity
    if found is None:
        console.print(f"equal to torch fp32 within {report.tolerance:.2g} of the range")
        return
    largest, mean = (255 * getattr(row, name) for row, name in _worst(report))
    console.print(
        f"loses {found.loss:.3f} dB of PSNR-Y to torch fp32 ({found.psnr_fp32:.3f} to "
        f"{found.psnr:.3f}) on {found.images} photographs of {found.source}; of 255 levels, single "
        f"values differ by up to {largest:.0f}, on average by {mean:.2f}"
    )


def _network(metadata: ModelMetadata) -> str:
    """Its steps, or what is known of another project's network."""
    if metadata.steps is not None:
        return counted(metadata.steps, "step")
    sizes = metadata.sizes
    rule = ""
    if sizes.fixed is not None:
        rule = f", only {sizes.fixed[1]}x{sizes.fixed[0]} pixels (larger pictures are cut)"
    elif sizes.multiple > 1:
        rule = f", in multiples of {sizes.multiple} pixels (pictures are padded)"
    return f"{metadata.architecture} ×{metadata.scale}{rule}"


def _worst(report: ExportReport) -> list[tuple[ParityRow, str]]:
    """The rows with the largest differences of both kinds."""
    return [(max(report.parity, key=attrgetter(n)), n) for n in ("largest", "mean")]


def show_quality(report: QualityReport) -> None:
    """A row per image and the mean, beside Bicubic."""
    perceptual = report.mean.scores.lpips is not None
    columns = ["PSNR dB", "SSIM", *(["LPIPS"] if perceptual else [])]
    table = Table(
        report.set,
        *columns,
        *(f"Bicubic {column}" for column in columns),
        title=report.backend.summary,
        caption=report.protocol,
    )
    for row in report.rows:
        table.add_row(row.image, *_scores(row))
    table.add_section()
    count = len(report.rows)
    name = f"mean of {count} of {count + len(report.skipped)}" if report.skipped else "mean"
    table.add_row(name, *_scores(report.mean), style="bold")
    console = stdout()
    console.print(table, width=None if console.is_terminal else 100)


def _scores(row: QualityRow) -> list[str]:
    """The cells of a row: the network's scores, then Bicubic's."""
    digits = {"psnr": 2, "ssim": 4, "lpips": 4}
    return [
        f"{value:.{places}f}"
        for scores in (row.scores, row.bicubic)
        for name, places in digits.items()
        if (value := getattr(scores, name)) is not None
    ]


def show_checks(title: str, checks: Iterable[Check]) -> None:
    """A line per check; what is missing comes with the command that adds it."""
    console = stdout()
    console.print(title, style="bold")
    for check in checks:
        console.print(
            "  ok" if check.ok else "  --", style="green" if check.ok else "yellow", end=""
        )
        advice = f"  → {check.advice}" if check.advice else ""
        console.print(f"  {check.name:<26} {check.found}{advice}")


@contextmanager
def build_progress(name: str) -> Iterator[Callable[[str, float], bool]]:
    """A bar over a build, on terminals only; Ctrl-C or SIGTERM cancel the build cleanly.

    Nothing is raised while it runs, since nothing may be thrown through TensorRT.

    Raises:
        KeyboardInterrupt: One of them came; the build was cancelled, or had just ended.
    """
    stopped: list[int] = []
    with (
        handled(lambda number, _: stopped.append(number), *BOTH),
        plain_bar() as bar,
    ):
        task = bar.add_task(escape(name), total=1.0, visible=False)

        def report(phase: str, share: float) -> bool:
            shown = escape(f"{name}: {phase}")
            bar.update(task, completed=share, description=shown, visible=True)
            return not stopped

        with _dropped_if(lambda: bool(stopped)):
            yield report
    if stopped:
        raise Terminated if signal.SIGTERM in stopped else KeyboardInterrupt


@contextmanager
def _dropped_if(condition: Callable[[], bool]) -> Iterator[None]:
    """Suppress an `AgsrError` if the condition then holds: a stopped build hasn't failed."""
    try:
        yield
    except AgsrError:
        if not condition():
            raise


def show_build(path: str, report: BuildReport) -> None:
    """What was built, and in which precision its layers are."""
    table = Table("layers", "types", box=None)
    for kind, types in report.layers.items():
        table.add_row(kind.lower(), ", ".join(f"{n} {t}" for t, n in types.items()))
    console = stdout()
    console.print(table)
    products = ", ".join(f"{n} in {t}" for t, n in report.products().items())
    console.print(
        f"{path}  {report.size / 1e6:.2f} MB, {_network(report.metadata)}, "
        f"{report.metadata.precision}, {report.flavour} {report.version}"
    )
    console.print(f"convolutions: {products}")
    if report.built:
        built = ", ".join(f"{n} in {t}" for t, n in report.built.items())
        console.print(f"convolutions in the engine: {built}")
    for profile in report.options.profiles:
        console.print(f"batch x height x width: {profile}")


def show_engines(folder: str, entries: Sequence[EngineEntry]) -> None:
    """Print a line per engine, and where they are."""
    _show_cached(folder, "engine", entries, [_engine_facts(entry.sidecar) for entry in entries])


def show_compiled(folder: str, entries: Sequence[CompiledEntry]) -> None:
    """Print a line per compiled network, and where they are."""
    names = ("runtime", "processor", "options")
    facts = [[str(entry.facts.get(name, "?")) for name in names] for entry in entries]
    _show_cached(folder, "compiled network", entries, facts)


def show_assembled(folder: str, entries: Sequence[CacheEntry]) -> None:
    """Print a line per ONNX file that was made of shipped weights, and where they are."""
    _show_cached(folder, "assembled file", entries, [[entry.name] for entry in entries])


def _show_cached(
    folder: str, noun: str, entries: Sequence[CacheEntry], facts: Sequence[Sequence[str]]
) -> None:
    console = stdout()
    for entry, known in zip(entries, facts, strict=True):
        text = ", ".join(known) if entry.sound else "damaged: rebuilt when needed"
        console.print(f"{entry.name[:12]}  {entry.size / 1e6:7.1f} MB  {text}")
    total = sum(entry.size for entry in entries) / 1e6
    console.print(f"{folder}: {counted(len(entries), noun)}, {total:.1f} MB")


def _engine_facts(sidecar: Mapping[str, Any]) -> list[str]:
    try:
        identity, metadata = json.loads(sidecar["identity"]), sidecar["report"]["metadata"]
        sizes = [
            "…".join("x".join(map(str, profile[end])) for end in ("smallest", "largest"))
            for profile in identity["options"]["profiles"]
        ]
        return [
            str(identity["gpu"]),
            f"{identity['flavour']} {identity['version']}",
            str(metadata["precision"]),
            f"{metadata['steps']} steps",
            *sizes,
            f"built {sidecar['built']}",
        ]
    except (KeyError, TypeError, ValueError):
        return ["of another version: rebuilt when needed"]
