"""What the command line shows: tables on stdout, progress on stderr, by rich."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TimeRemainingColumn,
    track,
)
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from agsr.optional import install_command

if TYPE_CHECKING:
    from agsr.bench.datasets import ImageSet
    from agsr.bench.environment import Check
    from agsr.bench.quality import QualityReport, QualityRow
    from agsr.engines.engine_cache import CacheEntry
    from agsr.engines.trt_builder import BuildReport
    from agsr.export import ExportReport
    from agsr.trainer import Progress, Trainer

_T = TypeVar("_T")


def stdout() -> Console:
    """Where data goes."""
    return Console(soft_wrap=True, highlight=False, markup=False)


def stderr(*, quiet: bool = False) -> Console:
    """Where progress and messages go."""
    return Console(stderr=True, soft_wrap=True, highlight=False, markup=False, quiet=quiet)


class BatchProgress:
    """A bar over files, on terminals only: how many are done, how fast, how long still."""

    def __init__(self, files: int, quiet: bool) -> None:
        console = stderr()
        columns = (
            *(BarColumn(), TaskProgressColumn(), _FilesColumn(), _RateColumn()),
            TimeRemainingColumn(),
        )
        self._shown = console.is_terminal and not quiet
        self._bar = Bar(*columns, console=console, transient=True, disable=not self._shown)
        self._task = self._bar.add_task("", total=float(files))

    def update(self, done: float) -> None:
        """Show that so many files are done, with the share of the present one."""
        self._bar.update(self._task, completed=done)

    @contextmanager
    def cleared(self) -> Iterator[None]:
        """Take the bar away while a line is printed, on stdout or stderr."""
        self._bar.stop()
        yield
        self._bar.start()

    def __enter__(self) -> BatchProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


class _FilesColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{int(task.completed)}/{int(task.total or 0)} files")


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if not task.speed else f"{60 * task.speed:.1f} files/min")


def tracked(items: Iterable[_T], name: str, total: int) -> Iterable[_T]:
    """The items, with a bar on stderr while they are made."""
    console = stderr()
    return track(
        items,
        escape(name),
        total=total,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def open_sets(names: Sequence[str], data: Path | None, *, fetch: bool) -> list[ImageSet]:
    """Test sets by name or path, with a bar on stderr over what has to be fetched."""
    from agsr.bench.datasets import find_set

    console = stderr()
    with Bar(console=console, transient=True, disable=not console.is_terminal) as bar:

        def find(name: str) -> ImageSet:
            task = bar.add_task(f"fetching {escape(name)}", total=None, visible=False)

            def report(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total, visible=done < total)

            return find_set(name, data, fetch=fetch, progress=report)

        return [find(name) for name in names]


def show_export(report: ExportReport) -> None:
    """Where the file is, what is in it, and how far it is from torch."""
    meta = report.metadata
    table = Table("input shape", "largest difference", "mean", box=None)
    for row in report.parity:
        batch, height, width = row.shape
        table.add_row(f"{batch}x3x{height}x{width}", f"{row.largest:.1e}", f"{row.mean:.1e}")
    console = stdout()
    console.print(
        f"{report.path}  {report.size / 1e6:.2f} MB, {meta.steps} steps, {meta.precision}, "
        f"opset {report.opset}, {sum(report.operators.values())} nodes"
    )
    console.print(table)
    console.print(f"equal to torch fp32 within {report.tolerance:.0e} of the range")


def show_quality(report: QualityReport) -> None:
    """A row per image and the mean, beside Bicubic."""
    perceptual = report.mean.lpips is not None
    columns = ["PSNR dB", "SSIM", *(["LPIPS"] if perceptual else [])]
    table = Table(
        escape(report.set),
        *columns,
        *(f"Bicubic {column}" for column in columns),
        title=report.backend.summary,
        caption=report.protocol,
    )
    for row in report.rows:
        table.add_row(escape(row.image), *_scores(row))
    table.add_section()
    table.add_row("mean", *_scores(report.mean), style="bold")
    console = stdout()
    console.print(table, width=None if console.is_terminal else 100)


def _scores(row: QualityRow) -> list[str]:
    """The cells of a row: the network's scores, then Bicubic's."""
    own = (row.psnr, row.ssim, row.lpips)
    bicubic = (row.bicubic_psnr, row.bicubic_ssim, row.bicubic_lpips)
    digits = (2, 4, 4)
    return [
        f"{value:.{places}f}"
        for scores in (own, bicubic)
        for value, places in zip(scores, digits, strict=True)
        if value is not None
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
    """A bar over a build, on terminals only; Ctrl-C cancels the build cleanly."""
    console = stderr()
    stopped: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, _: stopped.append(number))
    try:
        with Bar(console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task(escape(name), total=1.0)

            def report(phase: str, share: float) -> bool:
                bar.update(task, completed=share, description=escape(f"{name}: {phase}"))
                return not stopped

            yield report
    finally:
        signal.signal(signal.SIGINT, previous)


def show_build(path: str, report: BuildReport) -> None:
    """What was built, and in which precision its layers are."""
    table = Table("layers", "types", box=None)
    for kind, types in report.layers.items():
        table.add_row(kind.lower(), ", ".join(f"{n} {t}" for t, n in types.items()))
    console = stdout()
    console.print(table)
    products = ", ".join(f"{n} in {t}" for t, n in report.products().items())
    console.print(
        f"{path}  {report.size / 1e6:.2f} MB, {report.metadata.steps} steps, "
        f"{report.metadata.precision}, {report.flavour} {report.version}"
    )
    console.print(f"convolutions: {products}")
    for profile in report.options.profiles:
        console.print(f"batch x height x width: {profile}")


def show_cache(folder: str, entries: Sequence[CacheEntry]) -> None:
    """A line per engine, and where they are."""
    console = stdout()
    for entry in entries:
        facts = _engine_facts(entry.sidecar) if entry.sound else ["damaged: built anew when needed"]
        console.print(f"{entry.name[:12]}  {entry.size / 1e6:7.1f} MB  {', '.join(facts)}")
    console.print(f"{folder}: {len(entries)} engines, {sum(e.size for e in entries) / 1e6:.1f} MB")


def _engine_facts(sidecar: Mapping[str, Any]) -> list[str]:
    identity, metadata = json.loads(sidecar["identity"]), sidecar["report"]["metadata"]
    sizes = [
        "…".join("x".join(map(str, profile[end])) for end in ("smallest", "largest"))
        for profile in identity["options"]["profiles"]
    ]
    return [
        identity["gpu"],
        f"{identity['flavour']} {identity['version']}",
        metadata["precision"],
        f"{metadata['steps']} steps",
        *sizes,
        f"built {sidecar['built']}",
    ]


def follow_training(trainer: Trainer, minutes: float | None) -> None:
    """Run a trainer, with a line per report on stderr and scalars for TensorBoard.

    Of several ranks, the first reports. Ctrl-C and SIGTERM save the state and end the run; a second
    Ctrl-C ends it at once.
    """
    console = stderr(quiet=not trainer.world.leads)
    if trainer.config.stage == "gan" and not trainer.config.perceptual_weight:
        console.print("no perceptual loss: its weight is 0, or vgg16.npz is not there (--features)")
    writer = _tensorboard(trainer) if trainer.world.leads else None

    def stop(number: int, _: Any) -> None:
        trainer.stop()
        # torchrun and batch systems may send SIGTERM twice; only a second Ctrl-C is impatience.
        again = signal.default_int_handler if number == signal.SIGINT else signal.SIG_IGN
        signal.signal(number, again)

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for progress in trainer.run(minutes=minutes):
            console.print(_training_line(progress))
            _write_scalars(writer, progress)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if writer is not None:
            writer.close()
    iteration, iterations = trainer.state.iteration, trainer.schedule.iterations
    console.print(
        f"{'finished' if iteration >= iterations else 'stopped, go on with --resume'}: "
        f"{iteration} of {iterations} iterations, {_scores_line(trainer.state.scores)}, "
        f"{trainer.folder}"
    )


def _training_line(progress: Progress) -> str:
    terms = " ".join(f"{name} {value:.4g}" for name, value in progress.terms.items())
    left = timedelta(seconds=round(progress.seconds_left))
    return (
        f"{progress.iteration}/{progress.iterations}  steps {progress.steps}  {terms}  "
        f"rate {progress.rate:.1e}  {progress.patches_per_second:.1f} patches/s "
        f"({progress.matmul_share:.0%} of matmul)  left {left}  {_scores_line(progress.scores)}"
    )


def _scores_line(scores: Mapping[str, Any]) -> str:
    if not scores:
        return "not validated yet"
    psnr = " ".join(f"{steps}:{value:.3f}" for steps, value in scores["psnr_y"].items())
    return f"PSNR-Y {psnr}" + (f"  LPIPS {scores['lpips']:.4f}" if "lpips" in scores else "")


def _tensorboard(trainer: Trainer) -> Any | None:
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError:
        stderr().print(f"no TensorBoard log; add it with: {install_command('train')}")
        return None
    # A killed run logged past its last save; those points are purged, and made again.
    folder, start = str(trainer.folder / "tensorboard"), trainer.state.iteration + 1
    return SummaryWriter(folder, purge_step=start)


def _write_scalars(writer: Any | None, progress: Progress) -> None:
    if writer is None:
        return
    for name, value in progress.terms.items():
        writer.add_scalar(f"train/{name}", value, progress.iteration)
    writer.add_scalar("train/rate", progress.rate, progress.iteration)
    writer.add_scalar("train/patches_per_second", progress.patches_per_second, progress.iteration)
    for steps, psnr in progress.scores.get("psnr_y", {}).items():
        writer.add_scalar(f"validation/psnr_y_{steps}_steps", psnr, progress.iteration)
    if "lpips" in progress.scores:
        writer.add_scalar("validation/lpips", progress.scores["lpips"], progress.iteration)
    writer.flush()
