"""The HTML report and the plot, the first also as a browser shows it."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from agsr.bench.data.sets import TestImage
from agsr.bench.report.crops import MOST_SCENES, SCENE, Gallery, most_detailed
from agsr.bench.report.html import to_html
from agsr.bench.report.plot import INK, Dominance, Point, inline_svg, pareto, points, save_plot
from agsr.bench.report.tables import to_markdown, warnings
from agsr.bench.runner.entries import Contender
from agsr.bench.runner.results import BenchResult, ImageScore, Limit, Row, SetScore, Timing
from agsr.bench.scoring import Scores
from agsr.bicubic import downscale, upscale
from agsr.errors import DatasetError

Image = NDArray[np.uint8]


def row(weights: str, steps: int, psnr: float, seconds: float) -> Row:
    scores = ImageScore(image="photo", scores=Scores(psnr=psnr, ssim=0.9))
    return Row(
        contender=Contender(backend="ort", weights=weights, steps=steps),
        device="CPUExecutionProvider",
        precision="fp32",
        steps=steps,
        quality=(SetScore(set="Mini", images=(scores,)),),
        timings=(
            Timing(
                workload="320x180",
                boundary="host",
                images=1,
                output_pixels=1280 * 720,
                flops=1e9,
                rounds=((seconds,), (seconds * 1.1,)),
            ),
        ),
    )


@pytest.fixture
def result() -> BenchResult:
    return BenchResult(
        created="2026-01-01T00:00:00+00:00",
        command="agsr bench --set <Mini>",
        environment={"processor": "a <fast> one", "cores": "2"},
        rows=(
            row("psnr", 1, 30.0, 0.1),
            row("psnr", 4, 31.0, 0.3),
            row("gan", 4, 29.0, 0.2),
            Row(contender=Contender(backend="trt", weights="psnr"), error="no driver & no GPU"),
        ),
    )


@pytest.fixture
def gallery(photo: Image) -> Gallery:
    seen = Gallery()
    image = TestImage("photo", photo, downscale(photo))
    for weights, steps in (("psnr", 1), ("psnr", 4), ("gan", 4)):
        sr = np.asarray(np.clip(photo.astype(int) + steps, 0, 255), np.uint8)
        seen("Mini", image, Contender(backend="ort", weights=weights, steps=steps), sr)
    seen("Mini", image, Contender(backend="bicubic"), upscale(image.lr))
    return seen


def test_the_gallery_keeps_the_most_steps_of_one_backend(photo: Image, gallery: Gallery) -> None:
    image = TestImage("photo", photo, downscale(photo))
    other = Contender(backend="torch", weights="psnr", steps=6)
    gallery("Mini", image, other, np.zeros_like(photo))
    (scene,) = gallery.scenes
    parts = {part.label: part.pixels for part in scene.parts}
    assert list(parts) == ["original", "Bicubic", "psnr 4 steps", "gan 4 steps"]
    assert parts["psnr 4 steps"].mean() > parts["original"].mean()


def test_images_of_one_name_in_two_sets_are_two_scenes(photo: Image) -> None:
    gallery = Gallery()
    for name, pixels in (("A", photo), ("B", photo // 2)):
        image = TestImage("img_001", pixels, downscale(pixels))
        gallery(name, image, Contender(backend="bicubic"), pixels)
    assert [scene.title for scene in gallery.scenes] == ["A img_001", "B img_001"]
    for scene in gallery.scenes:
        original, bicubic = scene.parts
        assert np.array_equal(original.pixels, bicubic.pixels)


def test_files_of_one_name_in_two_folders_are_two_methods(photo: Image) -> None:
    gallery, image = Gallery(), TestImage("photo", photo, downscale(photo))
    for path in ("a/model.onnx", "b/model.onnx"):
        gallery("Mini", image, Contender(backend="ort", weights=path, foreign=True), photo)
    (scene,) = gallery.scenes
    assert [part.label for part in scene.parts] == ["original", "a/model.onnx", "b/model.onnx"]


def test_a_part_is_labelled_with_the_steps_that_it_has(photo: Image) -> None:
    """The larger step count may have failed on one image only."""
    gallery = Gallery()
    for name, counts in (("first", (1,)), ("second", (1, 4))):
        image = TestImage(name, photo, downscale(photo))
        for steps in counts:
            gallery("Mini", image, Contender(backend="ort", weights="psnr", steps=steps), photo)
    labels = [scene.parts[1].label for scene in gallery.scenes]
    assert labels == ["psnr 1 step", "psnr 4 steps"]


def test_the_gallery_keeps_the_first_images_only(photo: Image) -> None:
    gallery = Gallery()
    for number in range(MOST_SCENES + 2):
        image = TestImage(f"{number}", photo, downscale(photo))
        gallery("Mini", image, Contender(backend="bicubic"), photo)
    assert [scene.title for scene in gallery.scenes] == [f"Mini {n}" for n in range(MOST_SCENES)]


def test_a_scene_is_where_the_detail_is() -> None:
    image = np.full((600, 800), 128, np.uint8)
    image[200:560:2, 240:780] = 0
    box = most_detailed(image, SCENE)
    assert (box.top, box.left, box.height, box.width) == pytest.approx((200, 240, *SCENE), abs=2)
    assert box.cut(image).shape == (*SCENE, 3)
    small = most_detailed(image[:50, :60], SCENE)
    assert (small.height, small.width) == (50, 60)


def test_the_report_holds_everything_and_fetches_nothing(
    result: BenchResult, gallery: Gallery
) -> None:
    page = to_html(result, gallery)
    assert "a &lt;fast&gt; one" in page
    assert "<fast>" not in page
    assert "did not run:</span> trt psnr: no driver &amp; no GPU" in page
    # Addresses stand in names of the SVG's vocabulary alone.
    fetched = re.findall(r"""(?:src|href)=["']?(?!data:|#)([^"'> ]+)""", page)
    assert fetched == []
    assert page.count("<svg") == 1
    assert INK not in page
    assert "A4: " in page  # the attention maps of the shipped weights


def test_a_report_without_pictures_and_scores_says_what_there_is(result: BenchResult) -> None:
    bare = dataclasses.replace(result, rows=result.rows[3:], complete=False)
    page = to_html(bare, Gallery())
    assert "Interrupted" in page
    assert "<svg" not in page
    assert "Side by side" not in page


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


def test_the_plot_tells_files_of_one_name_apart(result: BenchResult) -> None:
    rows = tuple(row(path, 1, 30.0, 0.1) for path in ("a/model.onnx", "b/model.onnx"))
    found = points(dataclasses.replace(result, rows=rows))
    assert [p.line for p in found] == ["ort a/model.onnx fp32", "ort b/model.onnx fp32"]


def test_the_plot_is_of_one_set_and_one_workload(result: BenchResult, tmp_path: Path) -> None:
    """What failed on that of the others has no place among them."""
    both, other = row("psnr", 1, 30.0, 0.1), row("gan", 1, 29.0, 0.2)
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
    page = inline_svg(dataclasses.replace(result, rows=(row(name, 1, 30.0, 0.1),)))
    assert f"ort {name} fp32" in page


def test_nothing_to_plot_is_said(result: BenchResult, tmp_path: Path) -> None:
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
def test_the_best_choices_are_those_of_each_weights_beyond_the_noise(
    found: list[Point], best: dict[str, list[float]]
) -> None:
    assert {w: [p.psnr for p in front] for w, front in pareto(found).items()} == best


def test_some_choice_is_the_best_where_differences_are_rounding() -> None:
    """By pairs, the first would beat the second, the second the third, and the third the first."""
    a, b, c = _point(31.0011, 104, noise=0.05), _point(31.0, 100), _point(31.0009, 102)
    assert pareto([a, b, c])["psnr"]


def test_being_the_better_choice_is_a_strict_partial_order() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        scores = 31 + random.integers(0, 30, 12) * 2e-4
        times, noise = random.uniform(90, 130, 12), random.uniform(0, 0.08, 12)
        found = [_point(*row[:2], noise=row[2]) for row in zip(scores, times, noise, strict=True)]
        order = Dominance(found)
        for one, two in itertools.product(found, found):
            assert not (order.beats(one, two) and order.beats(two, one))
            if order.beats(one, two):
                assert all(order.beats(one, three) for three in found if order.beats(two, three))
        best = pareto(found)["psnr"]
        assert all(p in best or any(order.beats(q, p) for q in best) for p in found)


def test_noise_and_impossible_shares_are_warned_of(result: BenchResult, gallery: Gallery) -> None:
    assert warnings(result) == []
    first = result.rows[0]
    noisy = dataclasses.replace(first.timings[0], rounds=((0.1,), (0.3,)))
    product = Limit(device="cpu", precision="fp32", library="x", flops=1e9, rounds=(0.5, 9.0))
    doubtful = dataclasses.replace(
        result,
        rows=(dataclasses.replace(first, timings=(noisy,)), *result.rows[1:]),
        limits=(product,),
    )
    noise, share = warnings(doubtful)
    assert "1 of 3 times have noise above 10%, up to ±50% (ort psnr 1 step on 320x180)" in noise
    assert share.startswith("250% of the limit")  # by the product's fastest round
    assert noise in to_markdown(doubtful)
    assert "warning:</span> 1 of 3 times" in to_html(doubtful, gallery)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    """Headless Chromium. In CI its absence is a failure."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        assert "CI" not in os.environ, "CI must have chromium and chromedriver"
        pytest.skip("no chromium and chromedriver here")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = program
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    flags = "headless no-sandbox disable-gpu no-first-run disable-background-networking"
    for flag in (*flags.split(), "disable-sync", f"user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(f"--{flag}")
    running = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield running
    running.quit()


@pytest.mark.browser
@pytest.mark.slow
def test_a_browser_shows_the_report_and_its_slider_moves(
    browser: Any, result: BenchResult, gallery: Gallery, tmp_path: Path
) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select

    path = tmp_path / "report.html"
    path.write_text(to_html(result, gallery), encoding="utf-8")
    browser.get(path.as_uri())
    loaded = "return [...document.images].map(i => i.complete && i.naturalWidth > 0)"
    assert browser.execute_script(loaded)
    assert all(browser.execute_script(loaded))

    slider = browser.find_element(By.CSS_SELECTOR, ".slider")
    cut = "return getComputedStyle(document.querySelector('.slider .top')).clipPath"
    assert browser.execute_script(cut) == "inset(0px 0px 0px 50%)"
    slider.find_element(By.TAG_NAME, "input").send_keys(Keys.HOME)
    assert browser.execute_script(cut) == "inset(0px 0px 0px 0%)"

    top = slider.find_element(By.CLASS_NAME, "top")
    before = top.get_attribute("src")
    right = browser.find_element(By.CSS_SELECTOR, "select[data-side=right]")
    Select(right).select_by_visible_text("original")
    assert top.get_attribute("src") != before
    assert top.get_attribute("alt") == "original"
    assert browser.get_log("browser") == []


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1200])
def test_the_report_fits_phones_and_wide_windows(
    browser: Any, result: BenchResult, gallery: Gallery, tmp_path: Path, width: int
) -> None:
    path = tmp_path / "report.html"
    path.write_text(to_html(result, gallery), encoding="utf-8")
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(path.as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    boxes = (
        "return [...document.querySelectorAll(arguments[0])].map(e => e.getBoundingClientRect())"
    )
    crops = browser.execute_script(boxes, ".scene .row img")
    widths = [crop["width"] for crop in crops]
    assert max(widths) - min(widths) < 2
    (slider,) = browser.execute_script(boxes, ".slider")
    (card,) = browser.execute_script(boxes, ".scene")
    right = max(box["right"] for box in (slider, *crops))
    assert right - slider["left"] > 0.7 * card["width"]
    assert (crops[0]["top"] < slider["bottom"]) == (width == 1200)  # beside it, where there is room
