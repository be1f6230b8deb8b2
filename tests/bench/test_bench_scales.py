"""Benchmarks of networks of any scale: sets, baseline, borders, and runs of one scale."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from command_line import agsr
from conftest import PHOTO
from foreign_graphs import repeated_image, repeating
from numpy.typing import NDArray
from stubs import InProcessWorker

from agsr.bench.data.layouts import read_layout
from agsr.bench.data.sets import find_set, smallest
from agsr.bench.runner import entry_run
from agsr.bench.runner.entries import expand, of_one_scale, with_scales
from agsr.bench.runner.plan import Workload
from agsr.bench.runner.results import BenchResult
from agsr.bench.scoring import protocol
from agsr.bicubic import downscale, upscale
from agsr.errors import BackendRequestError
from agsr.metrics import psnr_y


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a set of one small image whose sides are no multiples."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AGSR_DATA", raising=False)
    (tmp_path / "Mini").mkdir()
    cv2.imwrite("Mini/a.png", cv2.imread(str(PHOTO))[40:91, 50:111])
    return tmp_path


def _cubic(distance: float) -> float:
    x = abs(distance)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0.0


def _imresize_rows(image: NDArray[Any], count: int) -> NDArray[Any]:
    """MATLAB's imresize along the first axis, as its source code states it: with 1-based indices,
    weights that sum to 1, and indices clamped to the image."""
    length = len(image)
    scale = count / length
    stretch = min(scale, 1)
    rows = []
    for x in range(1, count + 1):
        u = x / scale + 0.5 * (1 - 1 / scale)
        left = int(np.floor(u - 2 / stretch))
        indices = range(left, left + int(np.ceil(4 / stretch)) + 2)
        weights = np.array([stretch * _cubic(stretch * (u - index)) for index in indices])
        weights /= weights.sum()
        taken = image[[min(max(index, 1), length) - 1 for index in indices]].astype(np.float64)
        rows.append(np.tensordot(weights, taken, axes=1))
    return np.floor(np.clip(np.array(rows), 0, 255) + 0.5).astype(np.uint8)


def _imresize(image: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    columns = _imresize_rows(_imresize_rows(image, height).swapaxes(0, 1), width)
    return columns.swapaxes(0, 1)


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
def test_lr_images_and_baseline_equal_matlab_at_every_scale(scale: int) -> None:
    hr = np.random.default_rng(0).integers(0, 256, (48, 72, 3), np.uint8)
    lr = downscale(hr, scale)
    assert np.array_equal(lr, _imresize(hr, 48 // scale, 72 // scale))
    assert np.array_equal(upscale(lr, scale), _imresize(lr, 48, 72))
    if scale == 1:
        assert np.array_equal(lr, hr)


@pytest.mark.parametrize(("scale", "size"), [(1, (51, 61)), (2, (50, 60)), (3, (51, 60))])
def test_sets_are_cropped_and_shrunk_by_the_scale(
    folder: Path, scale: int, size: tuple[int, int]
) -> None:
    (image,) = find_set("Mini", folder, scale=scale)
    assert image.hr.shape[:2] == size
    assert image.lr.shape[:2] == (size[0] // scale, size[1] // scale)
    assert smallest(scale) == {1: 11, 2: 16, 3: 18}[scale]


@pytest.mark.parametrize("inner", ["LRx{}", "LRbicx{}", "LR_bicubic/X{}"])
def test_given_lr_images_are_those_of_the_scale(folder: Path, inner: str) -> None:
    (folder / "Mini" / "HR").mkdir()
    (folder / "Mini" / "a.png").rename(folder / "Mini" / "HR" / "a.png")
    for scale in (2, 3):
        place = folder / "Mini" / inner.format(scale)
        place.mkdir(parents=True)
        shade = np.full((51 // scale, 61 // scale, 3), scale, np.uint8)
        cv2.imwrite(str(place / "a.png"), shade)
    for scale in (2, 3):
        found = find_set("Mini", folder, scale=scale)
        assert [path.parts[-len(Path(inner).parts) - 1 : -1] for path in found.given if path] == [
            Path(inner.format(scale)).parts
        ]
        assert (next(iter(found)).lr == scale).all()
    assert not any(read_layout(folder / "Mini", scale=4).lr)


def test_a_folder_of_degraded_images_is_the_input_of_a_network_that_restores(
    folder: Path,
) -> None:
    (folder / "Mini" / "HR").mkdir()
    (folder / "Mini" / "a.png").rename(folder / "Mini" / "HR" / "a.png")
    (folder / "Mini" / "LR").mkdir()
    cv2.imwrite("Mini/LR/a.png", np.full((51, 61, 3), 7, np.uint8))
    (image,) = find_set("Mini", folder, scale=1)
    assert (image.lr == 7).all()
    assert image.hr.shape == (51, 61, 3)


def test_workloads_count_the_pixels_of_their_scale() -> None:
    assert Workload.of_size((10, 20), 2, 3).output_pixels == 2 * 10 * 20 * 9


def test_a_run_has_one_scale(folder: Path) -> None:
    for scale in (2, 3):
        repeating(folder / f"x{scale}.onnx", scale=scale)
    options: dict[str, Any] = {"backends": ["ort"], "steps": [1]}
    mixed = with_scales(expand(weights=["psnr", "x2.onnx"], models=["x3.onnx"], **options))
    assert [entry.scale for entry in mixed if entry.is_network] == [4, 2, 3]
    with pytest.raises(BackendRequestError, match=r"\(x2: x2.onnx; x3: x3.onnx; x4: psnr\)"):
        of_one_scale(mixed)
    alone = of_one_scale(with_scales(expand(weights=["x2.onnx"], **options)))
    assert [entry.label for entry in alone] == ["bicubic x2", "ort x2.onnx"]
    with pytest.raises(BackendRequestError, match="several scales"):
        of_one_scale(with_scales(expand(weights=["psnr"], models=["x3.onnx"], **options)))
    result = agsr("bench", "--set", "Mini", "-w", "psnr", "--model", "x2.onnx", "-b", "ort")
    assert result.exit_code == 2
    assert "run agsr bench once for each scale" in result.stderr


def test_an_unreadable_network_has_no_scale_that_others_would_differ_from(folder: Path) -> None:
    repeating(folder / "x2.onnx", scale=2)
    (folder / "broken.onnx").write_text("no ONNX file")
    options: dict[str, Any] = {"backends": ["ort"], "steps": [1]}
    found = with_scales(expand(weights=["broken.onnx"], models=["x2.onnx"], **options))
    assert {entry.weights: entry.scale for entry in found if entry.is_network} == {
        "broken.onnx": None,
        "x2.onnx": 2,
    }
    assert {entry.scale for entry in of_one_scale(found)} == {2}
    arguments = ["bench", "--set", "Mini", "--data", ".", "-b", "ort", "--rounds", "0"]
    result = agsr(*arguments, "--model", "x2.onnx", "--model", "broken.onnx")
    assert "not an ONNX file" in result.output
    assert "no rows of psnr" in result.stderr
    assert "several scales" not in result.output


@pytest.mark.parametrize(("name", "scale"), [("compact-x1", 1), ("compact-x2", 2)])
def test_pytorch_weights_of_others_are_benchmarked_as_a_model(
    folder: Path,
    community_file: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    scale: int,
) -> None:
    """On torch, beside the baseline of their scale; `agsr eval` gives the same score."""
    monkeypatch.setattr(entry_run, "Worker", InProcessWorker)
    weights = str(community_file(name))
    arguments = ["--set", "Mini", "--data", str(folder)]
    options = ["--model", weights, "-b", "torch", "--rounds", "0", "--json", "run.json"]
    result = agsr("bench", *arguments, *options)
    assert result.exit_code == 0, result.output
    _, network = BenchResult.load(Path("run.json")).rows
    assert (network.entry.scale, network.entry.weights) == (scale, weights)
    psnr = network.quality[0].images[0].scores.psnr
    evaluated = agsr("eval", *arguments, "-w", weights)
    assert evaluated.exit_code == 0, evaluated.output
    assert f"{psnr:.2f}" in evaluated.stdout


@pytest.mark.parametrize("scale", [1, 3, 8])
def test_networks_of_every_scale_are_scored(folder: Path, scale: int) -> None:
    repeating(folder / "network.onnx", scale=scale)
    arguments = ["--set", "Mini", "--data", "."]
    evaluated = agsr("eval", *arguments, "-w", "network.onnx")
    assert evaluated.exit_code == 0, evaluated.output
    (image,) = find_set("Mini", folder, scale=scale)
    expected = psnr_y(repeated_image(image.lr, scale), image.hr, scale)
    assert (f"{expected:.2f}" if scale > 1 else "inf") in evaluated.stdout
    options = ["--model", "network.onnx", "-b", "ort", "--rounds", "0", "--json", "run.json"]
    assert agsr("bench", *arguments, *options).exit_code == 0
    network = BenchResult.load(Path("run.json")).rows[1]
    assert network.quality[0].images[0].scores.psnr == pytest.approx(expected, abs=1e-6)


def test_a_benchmark_of_another_scale(folder: Path) -> None:
    repeating(folder / "x2.onnx", scale=2)
    arguments = ["bench", "--set", "Mini", "--data", ".", "--model", "x2.onnx", "-b", "ort"]
    result = agsr(*arguments, "--rounds", "0", "--json", "run.json")
    assert result.exit_code == 0, result.output
    assert "note: no rows of psnr, a x4 network: --model is x2" in result.stderr
    found = BenchResult.load(Path("run.json"))
    baseline, network = found.rows
    assert [row.entry.scale for row in found.rows] == [2, 2]
    assert found.protocol == protocol(2)
    (image,) = find_set("Mini", folder, scale=2)
    for row, sr in ((baseline, upscale(image.lr, 2)), (network, repeated_image(image.lr, 2))):
        psnr = row.quality[0].images[0].scores.psnr
        assert psnr == pytest.approx(psnr_y(sr, image.hr, 2), abs=1e-6)
    compared = agsr("bench", "compare", "run.json", "run.json")
    assert compared.exit_code == 0, compared.output
    record = json.loads(Path("run.json").read_text())
    for row in record["rows"]:
        del row["contender"]["scale"]  # as earlier versions wrote
    Path("run.json").write_text(json.dumps(record))
    assert {row.entry.scale for row in BenchResult.load(Path("run.json")).rows} == {4}
