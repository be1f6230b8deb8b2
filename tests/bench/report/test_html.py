"""The HTML report and its crops, also as a browser shows it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_results import plotted_result
from numpy.typing import NDArray

from agsr.bench.data.sets import TestImage
from agsr.bench.report.crops import MAX_SCENES, SCENE, CropCollector, most_detailed
from agsr.bench.report.html import to_html
from agsr.bench.report.plot import INK
from agsr.bench.report.tables import to_markdown, warnings
from agsr.bench.runner.entries import Entry
from agsr.bench.runner.measurements import PeakThroughput
from agsr.bench.runner.results import BenchResult
from agsr.bicubic import downscale, upscale

Image = NDArray[np.uint8]


@pytest.fixture
def result() -> BenchResult:
    return plotted_result()


@pytest.fixture
def crops(photo: Image) -> CropCollector:
    seen = CropCollector()
    image = TestImage("photo", photo, downscale(photo))
    for weights, steps in (("psnr", 1), ("psnr", 4), ("gan", 4)):
        sr = np.asarray(np.clip(photo.astype(int) + steps, 0, 255), np.uint8)
        seen("Mini", image, Entry(backend="ort", weights=weights, steps=steps), sr)
    seen("Mini", image, Entry(backend="bicubic"), upscale(image.lr))
    return seen


def test_a_scene_shows_the_largest_step_count_of_one_backend(
    photo: Image, crops: CropCollector
) -> None:
    image = TestImage("photo", photo, downscale(photo))
    other = Entry(backend="torch", weights="psnr", steps=6)
    crops("Mini", image, other, np.zeros_like(photo))
    (scene,) = crops.scenes
    parts = {crop.label: crop.pixels for crop in scene.crops}
    assert list(parts) == ["original", "Bicubic", "psnr 4 steps", "gan 4 steps"]
    assert parts["psnr 4 steps"].mean() > parts["original"].mean()


def test_images_of_one_name_in_two_sets_are_two_scenes(photo: Image) -> None:
    crops = CropCollector()
    for name, pixels in (("A", photo), ("B", photo // 2)):
        image = TestImage("img_001", pixels, downscale(pixels))
        crops(name, image, Entry(backend="bicubic"), pixels)
    assert [scene.title for scene in crops.scenes] == ["A img_001", "B img_001"]
    for scene in crops.scenes:
        original, bicubic = scene.crops
        assert np.array_equal(original.pixels, bicubic.pixels)


def test_files_of_one_name_in_two_folders_are_two_methods(photo: Image) -> None:
    crops, image = CropCollector(), TestImage("photo", photo, downscale(photo))
    for path in ("a/model.onnx", "b/model.onnx"):
        crops("Mini", image, Entry(backend="ort", weights=path, foreign=True), photo)
    (scene,) = crops.scenes
    assert [crop.label for crop in scene.crops] == ["original", "a/model.onnx", "b/model.onnx"]


def test_a_crop_is_labelled_with_its_own_steps(photo: Image) -> None:
    """The larger step count may have failed on one image only."""
    crops = CropCollector()
    for name, counts in (("first", (1,)), ("second", (1, 4))):
        image = TestImage(name, photo, downscale(photo))
        for steps in counts:
            crops("Mini", image, Entry(backend="ort", weights="psnr", steps=steps), photo)
    labels = [scene.crops[1].label for scene in crops.scenes]
    assert labels == ["psnr 1 step", "psnr 4 steps"]


def test_only_the_first_images_are_collected(photo: Image) -> None:
    crops = CropCollector()
    for number in range(MAX_SCENES + 2):
        image = TestImage(f"{number}", photo, downscale(photo))
        crops("Mini", image, Entry(backend="bicubic"), photo)
    assert [scene.title for scene in crops.scenes] == [f"Mini {n}" for n in range(MAX_SCENES)]


def test_a_scene_is_where_the_detail_is() -> None:
    image = np.full((600, 800), 128, np.uint8)
    image[200:560:2, 240:780] = 0
    box = most_detailed(image, SCENE)
    assert (box.top, box.left, box.height, box.width) == pytest.approx((200, 240, *SCENE), abs=2)
    assert box.cut(image).shape == (*SCENE, 3)
    small = most_detailed(image[:50, :60], SCENE)
    assert (small.height, small.width) == (50, 60)


def test_the_report_holds_everything_and_fetches_nothing(
    result: BenchResult, crops: CropCollector
) -> None:
    page = to_html(result, crops)
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
    page = to_html(bare, CropCollector())
    assert "Interrupted" in page
    assert "<svg" not in page
    assert "Side by side" not in page


def test_noise_and_impossible_shares_cause_warnings(
    result: BenchResult, crops: CropCollector
) -> None:
    assert warnings(result) == []
    first = result.rows[0]
    noisy = dataclasses.replace(first.timings[0], rounds=((0.1,), (0.3,)))
    product = PeakThroughput(
        device="cpu", precision="fp32", library="x", flops=1e9, rounds=(0.5, 9.0)
    )
    doubtful = dataclasses.replace(
        result,
        rows=(dataclasses.replace(first, timings=(noisy,)), *result.rows[1:]),
        peaks=(product,),
    )
    noise, share = warnings(doubtful)
    assert "1 of 3 times have noise above 10%, up to ±50% (ort psnr 1 step on 320x180)" in noise
    assert share.startswith("250% of peak")  # by the product's fastest round
    assert noise in to_markdown(doubtful)
    assert "warning:</span> 1 of 3 times" in to_html(doubtful, crops)


@pytest.mark.browser
@pytest.mark.slow
def test_a_browser_shows_the_report_and_its_slider_moves(
    browser: Any, result: BenchResult, crops: CropCollector, tmp_path: Path
) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select

    path = tmp_path / "report.html"
    path.write_text(to_html(result, crops), encoding="utf-8")
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
    browser: Any, result: BenchResult, crops: CropCollector, tmp_path: Path, width: int
) -> None:
    path = tmp_path / "report.html"
    path.write_text(to_html(result, crops), encoding="utf-8")
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
