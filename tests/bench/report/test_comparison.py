"""Comparison of two runs: changes that are found, and noise that is not reported."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from bench_results import simulate

from agsr.bench.report.comparison import Comparison, compare_results, shift
from agsr.bench.report.tables import comparison_tables
from agsr.bench.runner.measurements import Timing
from agsr.bench.runner.results import BenchResult, Row

LIMIT = 0.05


def slower(comparison: Comparison) -> list[str]:
    return [change.label for change in comparison.speed if change.regressed(LIMIT)]


def test_a_tenth_slower_is_found_in_spite_of_noise() -> None:
    rng = np.random.default_rng(1)
    found = [
        slower(compare_results(simulate(rng), simulate(rng, slowdown=1.1))) for _ in range(200)
    ]
    assert found.count(["torch on Mini"]) >= 190
    assert {label for labels in found for label in labels} == {"torch on Mini"}


def test_no_change_never_alarms() -> None:
    rng = np.random.default_rng(2)
    for _ in range(200):
        assert slower(compare_results(simulate(rng), simulate(rng))) == []


def test_a_machine_that_is_slower_today_does_not_alarm() -> None:
    rng = np.random.default_rng(3)
    for _ in range(100):
        comparison = compare_results(simulate(rng), simulate(rng, drift=1.3))
        assert slower(comparison) == []
        assert all(change.raw_ratio > 1.2 for change in comparison.speed)
        tiring = simulate(rng, drift=np.linspace(1, 1.5, 5))
        assert slower(compare_results(simulate(rng), tiring)) == []


def test_a_disturbed_round_seldom_alarms_and_does_not_hide_a_change() -> None:
    rng = np.random.default_rng(4)
    quiet = [slower(compare_results(simulate(rng), disturbed(simulate(rng)))) for _ in range(200)]
    assert sum(map(len, quiet)) <= 0.01 * 3 * len(quiet)
    found = [
        "torch on Mini"
        in slower(compare_results(simulate(rng), disturbed(simulate(rng, slowdown=1.15))))
        for _ in range(100)
    ]
    assert sum(found) >= 95


def disturbed(result: BenchResult) -> BenchResult:
    """The first round of every row took twice as long, but not its product."""

    def first_doubled(timing: Timing) -> Timing:
        ((first,), *others) = timing.rounds
        return replace(timing, rounds=((2 * first,), *others))

    rows = (replace(row, timings=(first_doubled(row.timings[0]),)) for row in result.rows)
    return replace(result, rows=tuple(rows))


def test_two_rounds_are_too_few_to_alarm_and_the_tables_show_it() -> None:
    rng = np.random.default_rng(5)
    comparison = compare_results(simulate(rng, rounds=2), simulate(rng, rounds=2, slowdown=2))
    change = comparison.speed[2]
    assert not change.regressed(LIMIT)
    assert change.doubtful(LIMIT)
    assert (change.low, change.high) == (0, float("inf"))
    assert comparison_tables(comparison)[0].rows[2][2] == "too few rounds"


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(6)
    for old, new in ((4, 4), (5, 5), (5, 10), (20, 20)):
        held = 0
        for _ in range(500):
            before, after = (rng.lognormal(0, 0.1, count).tolist() for count in (old, new))
            ratio, low, high = shift(before, [1.3 * value for value in after])
            assert low <= ratio <= high
            held += low <= 1.3 <= high
        assert held / 500 >= 0.93


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threads": 1}, "torch: threads was 8, is 1"),
        ({"threads": None}, "torch: threads was 8, is one per core"),
        ({"hints": "order=bgr"}, "torch: hints was none, is order=bgr"),
        ({"device": "cuda:0"}, "torch: device was cpu, is cuda:0"),
        (
            {"precision": "bf16", "device": "cuda:0"},
            "torch: device was cpu, is cuda:0; precision was fp32, is bf16",
        ),
    ],
)
def test_rows_that_ran_in_another_way_are_not_compared(
    changes: dict[str, Any], message: str
) -> None:
    rng = np.random.default_rng(14)
    *others, torch = simulate(rng).rows
    asked = {"threads", "hints"}
    eight = replace(torch, entry=replace(torch.entry, threads=8))
    entry = replace(
        eight.entry, **{name: value for name, value in changes.items() if name in asked}
    )
    got = {name: value for name, value in changes.items() if name not in asked}
    old = replace(simulate(rng), rows=(*others, eight))
    new = replace(old, rows=(*others, replace(eight, entry=entry, **got)))
    comparison = compare_results(old, new)
    assert comparison.different == (message,)
    assert comparison.missing == ()
    assert [x.label for x in comparison.speed] == ["bicubic on Mini", "ort on Mini"]
    assert [x.label for x in comparison.quality] == ["bicubic on Mini", "ort on Mini"]


def test_another_release_of_tensorrt_on_the_same_gpu_is_compared() -> None:
    rng = np.random.default_rng(15)
    old = simulate(rng)
    gpu = [replace(old.rows[2], device=f"NVIDIA H200 (TensorRT {n})") for n in ("11.4", "11.5")]
    before, after = (replace(old, rows=(row,)) for row in gpu)
    assert compare_results(before, after).different == ()
    assert len(compare_results(before, after).speed) == 1


def test_a_row_that_no_longer_starts_is_missing_and_not_different() -> None:
    old = simulate(np.random.default_rng(16))
    failed = Row(entry=old.rows[2].entry, error="no driver")
    comparison = compare_results(old, replace(old, rows=(*old.rows[:2], failed)))
    assert comparison.different == ()
    assert comparison.missing == ("quality of torch on Mini", "speed of torch on Mini")


@pytest.mark.parametrize("size", [4, 5, 6])
def test_the_interval_is_the_exact_test_s(size: int) -> None:
    """Of all ways to deal out 2n values, at most 2.5 % put the least quotient above one."""
    values = np.exp(np.random.default_rng(7).normal(0, 0.1, 2 * size))
    deals = list(itertools.combinations(range(2 * size), size))
    above = 0
    for deal in deals:
        old = [float(values[i]) for i in deal]
        new = [float(values[i]) for i in range(2 * size) if i not in deal]
        above += shift(old, new)[1] > 1
    assert 0 < above / len(deals) <= 0.025


def test_lost_quality_is_found() -> None:
    rng = np.random.default_rng(8)
    comparison = compare_results(simulate(rng), simulate(rng, psnr=29.98))
    assert [change.regressed(0.01) for change in comparison.quality] == [True] * 3
    assert [change.regressed(0.03) for change in comparison.quality] == [False] * 3
    assert comparison_tables(comparison)[1].rows[0] == ("bicubic on Mini", "-0.0200", "+0.00000")


def test_equal_images_in_both_runs_are_no_change() -> None:
    rng = np.random.default_rng(9)
    perfect = simulate(rng, psnr=float("inf"))
    assert [x.psnr for x in compare_results(perfect, perfect).quality] == [0.0] * 3
    assert compare_results(perfect, simulate(rng)).quality[0].regressed(0.01)


def test_missing_timings_and_scores_are_listed_apart() -> None:
    rng = np.random.default_rng(10)
    old, new = simulate(rng), simulate(rng)
    bicubic, ort, torch = new.rows
    crashed = replace(torch, quality=(), timings=(), error="it crashed")
    partly = replace(new, rows=(bicubic, replace(ort, timings=()), crashed))
    assert compare_results(old, partly).missing == (
        "quality of torch on Mini",
        "speed of ort on Mini",
        "speed of torch on Mini",
    )
    assert compare_results(partly, old).missing == ()


def test_both_runs_are_compared_with_the_same_product() -> None:
    rng = np.random.default_rng(11)
    old, new = simulate(rng, noise=1e-6), simulate(rng, noise=1e-6)
    (product,) = new.peaks
    faster = replace(product, library="onnxruntime cpu", rounds=(0.001,) * 5)
    assert slower(compare_results(old, replace(new, peaks=(faster, product)))) == []
    assert slower(compare_results(replace(old, peaks=(faster, product)), new)) == []
    # Without a common one the times themselves are compared, in both runs.
    without = compare_results(old, replace(new, peaks=(faster,)))
    assert all(x.ratio == pytest.approx(x.raw_ratio, rel=1e-4) for x in without.speed)


def test_the_table_says_which_times_are_relative_to_a_product() -> None:
    rng = np.random.default_rng(17)
    old = simulate(rng)
    (relative,) = comparison_tables(compare_results(old, old))[:1]
    assert {row[1] for row in relative.rows} == {"1.000"}
    assert relative.caption.startswith("Times are relative to a matrix product")
    assert "no product" not in relative.caption
    (raw,) = comparison_tables(compare_results(old, replace(old, peaks=())))[:1]
    assert {row[1] for row in raw.rows} == {"1.000 *"}
    assert (
        raw.caption
        == "* The runs have no product in common: a slower machine looks like a slower program."
    )
    away = replace(old.rows[2], device="cuda:0")
    both = replace(old, rows=(*old.rows[:2], away))
    (mixed,) = comparison_tables(compare_results(both, both))[:1]
    assert [row[1] for row in mixed.rows] == ["1.000", "1.000", "1.000 *"]
    assert mixed.caption == f"{relative.caption} {raw.caption}"


def test_products_of_different_sizes_compare_by_rate() -> None:
    rng = np.random.default_rng(12)
    old, new = simulate(rng, noise=1e-6), simulate(rng, noise=1e-6)
    (product,) = new.peaks
    larger = replace(product, flops=8e9, rounds=tuple(8 * x for x in product.rounds))
    comparison = compare_results(old, replace(new, peaks=(larger,)))
    assert all(x.ratio == pytest.approx(1, rel=1e-4) for x in comparison.speed)


def test_an_interrupted_run_can_be_compared() -> None:
    """Its last round may lack the product."""
    rng = np.random.default_rng(13)
    old, new = simulate(rng), simulate(rng)
    (product,) = new.peaks
    cut = replace(new, peaks=(replace(product, rounds=product.rounds[:4]),), complete=False)
    assert slower(compare_results(old, cut)) == []
    assert compare_results(old, cut).speed[0].low > 0


def test_means_over_different_images_are_not_compared() -> None:
    before = simulate(np.random.default_rng(0))
    more = tuple(
        replace(
            row,
            quality=tuple(
                replace(q, images=(*q.images, replace(q.images[0], image="b"))) for q in row.quality
            ),
        )
        for row in before.rows
    )
    found = compare_results(before, replace(before, rows=more))
    assert not found.quality
    assert "ort on Mini: images were 1 (a), are 2 (a, b)" in found.different
