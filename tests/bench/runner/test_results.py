"""A benchmark's result as data and as JSON, and what is derived from it."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from bench_results import INFINITE, image, peak, row, timing, validate
from stubs import Repeat

from agsr.bench.report.tables import TABLE1_PRINTED, failures, table1, tables, to_markdown
from agsr.bench.runner.entries import Entry
from agsr.bench.runner.measurements import ImageScore, Parity, SetScore
from agsr.bench.runner.results import BenchResult, Row
from agsr.bench.scoring import QualityReport, QualityRow, Scores
from agsr.errors import DatasetError


@pytest.fixture
def result() -> BenchResult:
    off = Parity(largest=0.5, mean=0.01, psnr_change=-INFINITE)
    return BenchResult(
        created="2026-01-01T00:00:00+00:00",
        command="agsr bench",
        environment={"cores": "2"},
        rows=(
            Row(entry=Entry(backend="bicubic"), device="numpy", precision="uint8"),
            row(
                load_seconds=1.5,
                first_call_seconds=0.1,
                peak_memory=1000,
                quality=(SetScore(set="Mini", images=(image(INFINITE), image(30.0, parity=off))),),
                timings=(timing((0.1, 0.2), (0.3,)),),
            ),
            Row(entry=Entry(backend="trt", weights="psnr"), error="not | here"),
        ),
        peaks=(peak("cpu", "fp32", 0.01, 0.02),),
        reference="torch cpu fp32",
        notes=("a note",),
        complete=False,
    )


def test_json_round_trip_preserves_everything(result: BenchResult, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(result.to_json(), encoding="utf-8")
    assert BenchResult.load(path) == result


def test_json_is_strict_and_matches_the_schema(result: BenchResult) -> None:
    record = json.loads(result.to_json(), parse_constant=pytest.fail)
    assert record["rows"][1]["quality"][0]["images"][0]["scores"]["psnr"] == "inf"
    assert record["rows"][1]["quality"][0]["mean"]["psnr"] == "inf"
    validate(record)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("rows", 1, "timings", 0, "rounds"), []),
        (("rows", 1, "timings", 0, "rounds"), [[]]),
        (("rows", 1, "timings", 0, "rounds"), [["soon"]]),
        (("rows", 1, "timings", 0, "rounds"), [[-1.0]]),
        (("rows", 1, "quality", 0, "images", 0, "scores"), {"psnr": "many", "ssim": 1}),
        (("rows", 1, "quality", 0, "images"), 7),
        (("rows", 1, "quality", 0, "images"), []),
        (("rows",), {"a": 1}),
        (("rows", 0), "row"),
        (("limits", 0, "rounds"), None),
        (("environment",), None),
        (("notes",), None),
    ],
)
def test_damaged_json_is_rejected(
    result: BenchResult, tmp_path: Path, where: tuple[Any, ...], value: Any
) -> None:
    record = json.loads(result.to_json())
    inner = record
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    path = tmp_path / "result.json"
    path.write_text(json.dumps(record))
    with pytest.raises(DatasetError, match=r"result\.json: not a benchmark result"):
        BenchResult.load(path)
    with pytest.raises(jsonschema.ValidationError):
        validate(record)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"not a benchmark result \(not JSON: Expecting value in line 1\); expected a file "),
        ("\x00\x01", r"not a benchmark result \(not JSON: "),
        ("\ud800", r"not a benchmark result \(not text\)"),
        ("[1, 2]", "schema is None; expected 'agsr-bench-1', as written by agsr bench --json"),
        ('{"schema": "agsr-bench-0"}', "schema is 'agsr-bench-0'; expected 'agsr-bench-1'"),
        ('{"schema": "agsr-bench-1"}', r"\(lacks 'limits'\)"),
    ],
)
def test_other_files_are_rejected(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.json").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(DatasetError, match=message):
        BenchResult.load(tmp_path / "x.json")


def test_evaluation_writes_strict_json_too() -> None:
    scores, bicubic = Scores(psnr=INFINITE, ssim=1.0), Scores(psnr=30.0, ssim=0.9)
    rows = (QualityRow(image="same", scores=scores, bicubic=bicubic),)
    report = QualityReport(set="Mini", backend=Repeat().info, rows=rows)
    found = json.loads(report.to_json(), parse_constant=pytest.fail)
    assert found["rows"][0]["psnr"] == found["mean"]["psnr"] == "inf"
    names = ("psnr", "ssim", "lpips")
    assert list(found["rows"][0]) == ["image", *names, *(f"bicubic_{name}" for name in names)]
    assert found["mean"]["bicubic_psnr"] == 30.0


def test_means_count_every_image() -> None:
    score = SetScore(set="x", images=(image(30.0, lpips=0.0), image(32.0, lpips=0.5)))
    assert score.mean == Scores(psnr=31.0, ssim=0.9, lpips=0.25)
    same = SetScore(set="x", images=(image(30.0, lpips=0.0),))
    assert same.mean.lpips == 0
    partly = SetScore(set="x", images=(image(30.0, lpips=0.0), image(32.0)))
    assert partly.mean.lpips is None


def test_parity_of_a_set_is_the_largest_and_the_means() -> None:
    one = Parity(largest=0.5, mean=0.1, psnr_change=-0.2)
    two = Parity(largest=0.25, mean=0.3, psnr_change=0.1)
    found = SetScore(set="x", images=(image(1, parity=one), image(2, parity=two))).parity
    assert found is not None
    assert (found.largest, found.mean) == (0.5, pytest.approx(0.2))
    assert found.psnr_change == pytest.approx(-0.05)
    assert SetScore(set="x", images=(image(1),)).parity is None


def test_timing_is_summed_up_by_rounds_and_by_samples() -> None:
    samples = np.random.default_rng(0).uniform(0.09, 0.11, (5, 7))
    found = timing(*map(tuple, samples.tolist()))
    medians = [statistics.median(round_) for round_ in samples.tolist()]
    summary = found.summary()
    assert summary["median"] == statistics.median(medians)
    assert summary["p95"] == pytest.approx(np.percentile(samples, 95))
    assert summary["p99"] == pytest.approx(np.percentile(samples, 99))
    assert summary["noise"] == (max(medians) - min(medians)) / 2 / summary["median"]
    assert summary["images_per_second"] == 2 / summary["median"]
    assert summary["output_megapixels_per_second"] == 8 / summary["median"]


def test_share_is_of_the_fastest_product_of_the_same_kind_and_precision(
    result: BenchResult,
) -> None:
    peaks = (
        peak("cpu", "fp32", 0.2, 0.2),
        peak("CPUExecutionProvider", "fp32", 0.1, 0.1),
        peak("CPU", "bf16", 0.02),
        peak("cuda:0", "fp32", 0.001),
        peak("cuda:0", "fp16", 0.0001),
    )
    found = replace(result, peaks=peaks)
    half_second = timing((0.5,))
    expected = {
        ("cpu", "fp32"): 0.1,
        ("CPU", "bf16"): 0.02,
        ("CUDAExecutionProvider", "fp32"): 0.001,
        ("NVIDIA H200 (TensorRT 11.4)", "fp16"): 0.0001,
    }
    for (device, precision), product in expected.items():
        share = found.share(row(device, precision), half_second)
        assert share == pytest.approx(1e9 / 0.5 / (2e9 / product))
    assert found.share(row("cuda:0", "bf16"), half_second) is None
    assert found.share(row("cpu", "fp16"), half_second) is None
    assert found.share(row("cpu", "fp32"), timing((0.5,), flops=None)) is None


def test_tables_hold_the_figures_and_failures_their_reasons(result: BenchResult) -> None:
    quality, speed, costs = tables(result)
    assert quality.rows[0][:3] == ("torch psnr 1 step fp32", "inf", "0.9000")
    share = 1e9 / 0.225 / (2e9 / 0.01)  # of its fastest round
    assert speed.rows[0][1:3] == ("225.0", "290.0")
    assert speed.rows[0][-1] == f"{share:.0%}"
    assert costs.rows[1][3:] == ("1500", "100", "0", "–")
    assert failures(result) == ["trt psnr: not | here"]
    shown = to_markdown(result)
    assert "Interrupted: only what was finished." in shown
    assert "- a note" in shown


def scored(entry: Entry, **psnr: float) -> Row:
    sets = tuple(
        SetScore(set=name, images=(ImageScore(image="a", scores=Scores(psnr=x, ssim=0.5)),))
        for name, x in psnr.items()
    )
    return Row(entry=entry, quality=sets)


def test_measured_rows_precede_the_printed_ones_and_are_not_marked() -> None:
    bicubic = scored(Entry(backend="bicubic"), Set5=28.43, Set14=26.0, BSD100=25.96)
    ours = scored(Entry(backend="auto", weights="psnr", steps=4), Set5=31.5, BSD100=27.35)
    failed = Row(entry=Entry(backend="trt", weights="psnr"), error="no GPU")
    result = BenchResult(created="", command="", environment={}, rows=(bicubic, ours, failed))
    table = table1(result)
    assert table.columns == ("", "Set5", "Set14", "BSD100")
    assert table.rows[0] == ("Bicubic", "28.43 / 0.500", "26.00 / 0.500", "25.96 / 0.500")
    assert table.rows[1] == ("auto psnr 4 steps", "31.50 / 0.500", "–", "27.35 / 0.500")
    assert [row[0] for row in table.rows[2:]] == [f"{name} *" for name in TABLE1_PRINTED]
    assert table.rows[-1][1:] == ("31.62 / 0.903", "29.37 / 0.865", "30.19 / 0.872")
    assert "can't be identified" in table.caption
