"""The paper's Table 1 beside measured rows."""

from __future__ import annotations

from agsr.bench.report.table1 import PRINTED, table1
from agsr.bench.runner.entries import Contender
from agsr.bench.runner.results import BenchResult, ImageScore, Row, SetScore
from agsr.bench.scoring import Scores


def scored(contender: Contender, **psnr: float) -> Row:
    sets = tuple(
        SetScore(set=name, images=(ImageScore(image="a", scores=Scores(psnr=x, ssim=0.5)),))
        for name, x in psnr.items()
    )
    return Row(contender=contender, quality=sets)


def test_measured_rows_stand_before_the_printed_ones_and_are_not_marked() -> None:
    bicubic = scored(Contender(backend="bicubic"), Set5=28.43, Set14=26.0, BSD100=25.96)
    ours = scored(Contender(backend="auto", weights="psnr", steps=4), Set5=31.5, BSD100=27.35)
    failed = Row(contender=Contender(backend="trt", weights="psnr"), error="no GPU")
    result = BenchResult(created="", command="", environment={}, rows=(bicubic, ours, failed))
    table = table1(result)
    assert table.columns == ("", "Set5", "Set14", "BSD100")
    assert table.rows[0] == ("Bicubic", "28.43 / 0.500", "26.00 / 0.500", "25.96 / 0.500")
    assert table.rows[1] == ("auto psnr 4 steps", "31.50 / 0.500", "–", "27.35 / 0.500")
    assert [row[0] for row in table.rows[2:]] == [f"{name} *" for name in PRINTED]
    assert table.rows[-1][1:] == ("31.62 / 0.903", "29.37 / 0.865", "30.19 / 0.872")
    assert "can't be identified" in table.caption
