"""The paper's Table 1 beside what is measured here."""

from __future__ import annotations

from agsr.bench.report.tables import NOTHING, Table
from agsr.bench.runner.results import BenchResult, Row
from agsr.bench.scoring import Scores

SETS = ("Set5", "Set14", "BSD100")
"""Its columns."""

PRINTED: dict[str, tuple[tuple[float, float], ...]] = {
    "Bicubic": ((24.72, 0.695), (22.56, 0.613), (24.99, 0.704)),
    "SRCNN": ((25.83, 0.811), (23.16, 0.726), (25.49, 0.785)),
    "SRGAN": ((29.24, 0.841), (27.46, 0.822), (28.81, 0.836)),
    "the paper's": ((31.62, 0.903), (29.37, 0.865), (30.19, 0.872)),
}
"""Its rows as printed: PSNR in dB and SSIM, by set."""

CAPTION = (
    "PSNR in dB / SSIM. Rows marked * are as the paper prints them: their protocol can't be "
    "identified (no common pair of filters gives its Bicubic row), so they can't be compared with "
    "the measured ones. Measured: "
)


def table1(result: BenchResult) -> Table:
    """Measured rows first, then the printed ones, marked."""
    measured = [
        (_name(row), *(_cell(_score(row, name)) for name in SETS))
        for row in result.rows
        if row.quality
    ]
    printed = [
        (f"{name} *", *(f"{psnr:.2f} / {ssim:.3f}" for psnr, ssim in scores))
        for name, scores in PRINTED.items()
    ]
    return Table("Table 1", ("", *SETS), (*measured, *printed), CAPTION + result.protocol)


def _name(row: Row) -> str:
    return row.contender.label if row.contender.is_network else "Bicubic"


def _score(row: Row, name: str) -> Scores | None:
    return next((score.mean for score in row.quality if score.set == name), None)


def _cell(scores: Scores | None) -> str:
    return f"{scores.psnr:.2f} / {scores.ssim:.3f}" if scores else NOTHING
