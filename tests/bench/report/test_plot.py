"""The plot of quality against time, and its Pareto fronts."""

from __future__ import annotations

import dataclasses
import itertools
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from bench_results import plotted_result, plotted_row

from agsr.bench.report.plot import Dominance, Point, inline_svg, pareto, points, save_plot
from agsr.bench.runner.results import BenchResult
from agsr.errors import DatasetError


@pytest.fixture
def result() -> BenchResult:
    return plotted_result()


def test_the_plot_holds_every_scored_and_timed_row(result: BenchResult, tmp_path: Path) -> None:
    found = points(result)
    assert [(p.line, p.steps, p.psnr) for p in found] == [
        ("ort psnr fp32", 1, 30.0),
        ("ort psnr fp32", 4, 31.0),
        ("ort gan fp32", 4, 29.0),
    ]
    fronts = {weights: [p.psnr for p in front] for weights, front in pareto(found).items()}
    assert fronts == {"psnr": [30.0, 31.0], "gan": [29.0]}
    for suffix, start in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")):
        path = tmp_path / f"plot{suffix}"
        save_plot(result, path)
        assert path.read_bytes().startswith(start)
    assert inline_svg(result) == inline_svg(result)
    assert "currentColor" in inline_svg(result)


def test_a_broad_line_connects_the_best_of_one_weights_only(result: BenchResult) -> None:
    """At equal times, psnr scores higher than gan: no line may fall from one to the other."""
    rows = (
        *(plotted_row("psnr", steps, psnr, 0.1 * steps) for steps, psnr in ((1, 30.0), (4, 31.6))),
        *(plotted_row("gan", steps, psnr, 0.1 * steps) for steps, psnr in ((1, 29.0), (4, 30.4))),
    )
    drawn = ElementTree.fromstring(inline_svg(dataclasses.replace(result, rows=rows)))
    broad = {
        element.get("d", "").strip()
        for element in drawn.iter()
        if "stroke-width: 5" in element.get("style", "") and "clip-path" in element.attrib
    }
    ends = [[float(n) for n in re.findall(r"[-\d.]+", path)] for path in broad]
    assert len(ends) == 2
    for left, first, right, second in ends:
        assert left < right
        assert first > second  # SVG counts downwards: the line rises


def test_the_plot_distinguishes_files_of_one_name(result: BenchResult) -> None:
    rows = tuple(plotted_row(path, 1, 30.0, 0.1) for path in ("a/model.onnx", "b/model.onnx"))
    found = points(dataclasses.replace(result, rows=rows))
    assert [p.line for p in found] == ["ort a/model.onnx fp32", "ort b/model.onnx fp32"]


def test_the_plot_is_of_one_set_and_one_workload(result: BenchResult, tmp_path: Path) -> None:
    """What failed on that of the others has no place among them."""
    both, other = plotted_row("psnr", 1, 30.0, 0.1), plotted_row("gan", 1, 29.0, 0.2)
    large = dataclasses.replace(both.timings[0], workload="1280x720", rounds=((9.0,),))
    second = dataclasses.replace(both.quality[0], set="Other")
    rows = (
        dataclasses.replace(both, timings=(*both.timings, large)),
        dataclasses.replace(other, timings=(large,)),
        dataclasses.replace(other, quality=(second,)),
    )
    assert [p.line for p in points(dataclasses.replace(result, rows=rows))] == ["ort psnr fp32"]
    save_plot(dataclasses.replace(result, rows=rows[::-1]), tmp_path / "plot.svg")
    drawn = (tmp_path / "plot.svg").read_text()
    assert "PSNR-Y on Other, dB" in drawn
    assert "median time of 320x180, ms" in drawn


@pytest.mark.parametrize("name", ["x$y$z.onnx", r"a$\bad$.onnx", "50 % of $5.onnx"])
def test_dollars_in_a_name_are_no_formula(result: BenchResult, name: str) -> None:
    page = inline_svg(dataclasses.replace(result, rows=(plotted_row(name, 1, 30.0, 0.1),)))
    assert f"ort {name} fp32" in page


def test_an_empty_plot_is_an_error(result: BenchResult, tmp_path: Path) -> None:
    bare = dataclasses.replace(result, rows=result.rows[3:])
    with pytest.raises(DatasetError, match="nothing to plot"):
        save_plot(bare, tmp_path / "plot.svg")
    assert not list(tmp_path.iterdir())


def _point(psnr: float, milliseconds: float, weights: str = "psnr", noise: float = 0.0) -> Point:
    return Point("", 1, milliseconds, psnr, weights, noise)


@pytest.mark.parametrize(
    ("found", "best"),
    [
        ([_point(31.6, 100), _point(30.4, 100, "gan")], {"psnr": [31.6], "gan": [30.4]}),
        ([_point(31.0, 100), _point(31.5, 105)], {"psnr": [31.0, 31.5]}),
        ([_point(31.0, 100, noise=0.1), _point(31.5, 105)], {"psnr": [31.5]}),  # as fast
        ([_point(31.0, 100), _point(31.5, 105, noise=0.1)], {"psnr": [31.5]}),
        ([_point(31.0, 100), _point(31.0, 105)], {"psnr": [31.0]}),
        ([_point(31.0, 100, noise=1.2), _point(30.0, 900)], {"psnr": [31.0]}),
    ],
)
def test_the_pareto_front_is_per_weights_and_beyond_the_noise(
    found: list[Point], best: dict[str, list[float]]
) -> None:
    assert {w: [p.psnr for p in front] for w, front in pareto(found).items()} == best


def test_a_front_is_never_empty_if_differences_are_rounding() -> None:
    """By pairs, the first would dominate the second, the second the third, the third the first."""
    a, b, c = _point(31.0011, 104, noise=0.05), _point(31.0, 100), _point(31.0009, 102)
    assert pareto([a, b, c])["psnr"]


def test_dominance_is_a_strict_partial_order() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        scores = 31 + random.integers(0, 30, 12) * 2e-4
        times, noise = random.uniform(90, 130, 12), random.uniform(0, 0.08, 12)
        found = [_point(*row[:2], noise=row[2]) for row in zip(scores, times, noise, strict=True)]
        order = Dominance(found)
        for one, two in itertools.product(found, found):
            assert not (order.dominates(one, two) and order.dominates(two, one))
            if order.dominates(one, two):
                after = [three for three in found if order.dominates(two, three)]
                assert all(order.dominates(one, three) for three in after)
        best = pareto(found)["psnr"]
        assert all(p in best or any(order.dominates(q, p) for q in best) for p in found)
