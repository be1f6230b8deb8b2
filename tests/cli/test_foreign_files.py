"""Other projects' ONNX files on the command line: infer, eval and export."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import agsr
from conftest import PHOTO
from foreign_graphs import dimming, repeated_image, repeating
from google.protobuf import text_format
from PIL import Image
from tritonclient.grpc import model_config_pb2

from agsr.metrics import psnr_y


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two small pictures, one of them in a set."""
    photo = Image.open(PHOTO).convert("RGB")
    photo.crop((0, 0, 25, 21)).save(tmp_path / "a.png")
    photo.crop((0, 30, 24, 50)).save(tmp_path / "b.jpg", quality=95)
    (tmp_path / "Mini").mkdir()
    photo.crop((60, 50, 109, 91)).save(tmp_path / "Mini" / "c.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _pixels(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("scale", [1, 2, 3, 8])
def test_results_have_the_scale_and_name_of_the_network(folder: Path, scale: int) -> None:
    repeating(folder / "net.onnx", scale=scale)
    planned = agsr("infer", "a.png", "b.jpg", "-w", "net.onnx", "-n")
    assert planned.stdout == f"a.png → a_x{scale}.png\nb.jpg → b_x{scale}.png\n"
    result = agsr("infer", "a.png", "b.jpg", "-w", "net.onnx", "--tile", "8", "--halo", "1")
    assert (result.exit_code, result.stdout) == (0, f"a_x{scale}.png\nb_x{scale}.png\n")
    for source in ("a.png", "b.jpg"):
        expected = repeated_image(_pixels(source), scale)
        assert np.array_equal(_pixels(f"{source[0]}_x{scale}.png"), expected)
    again = agsr("infer", *sorted(path.name for path in folder.glob("*.[pj]*g")), "-w", "net.onnx")
    assert again.stdout == result.stdout
    assert "2 skipped as results of earlier runs" in again.stderr


def test_sizes_beyond_the_scale_need_two_passes_and_then_another_network(folder: Path) -> None:
    repeating(folder / "x2.onnx", scale=2)
    repeating(folder / "x1.onnx", scale=1)
    result = agsr("infer", "a.png", "-w", "x2.onnx", "--scale", "4", "-f", "tif")
    assert result.stdout == "a_x4.tif\n"
    assert np.array_equal(_pixels("a_x4.tif"), repeated_image(_pixels("a.png"), 4))
    result = agsr("infer", "a.png", "-w", "x2.onnx", "--max-size", "1000")
    assert "note: the result has 100x84 pixels: 4 times the input is the most" in result.stderr
    for name, most in (("x1.onnx", "1: this ×1"), ("x2.onnx", "4, two passes of this ×2")):
        result = agsr("infer", "a.png", "-w", name, "--scale", "5")
        assert result.exit_code == 2
        assert f"scale is 5.0; expected above 0, at most {most} network" in result.stderr


def test_hints_reach_the_network_and_wrong_ones_are_rejected(folder: Path) -> None:
    dimming(folder / "net.onnx", [0.5, 1, 1], 2)
    hints = "order=bgr,input_peak=1,output_peak=1"
    result = agsr("infer", "a.png", "-w", "net.onnx", "--hints", hints, "-o", "out.png")
    assert result.exit_code == 0, result.output
    expected = _pixels("a.png").astype(np.float64) * [1, 1, 0.5]
    assert np.array_equal(_pixels("out.png"), repeated_image(np.floor(expected + 0.5), 2))
    for arguments in (("-w", "net.onnx", "--hints", "colour=red"), ("--hints", "order=bgr")):
        assert agsr("infer", "a.png", *arguments).exit_code == 2
        assert agsr("eval", "--set", "Mini", *arguments).exit_code == 2
    assert agsr("infer", "a.png", "-w", "net.onnx", "--steps", "2").exit_code == 2


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_eval_scores_at_the_scale_of_the_network(folder: Path, scale: int) -> None:
    repeating(folder / "net.onnx", scale=scale)
    result = agsr("eval", "--set", "Mini", "-w", "net.onnx", "--json")
    report = json.loads(result.stdout)
    assert report["backend"]["scale"] == scale
    assert report["protocol"].startswith(f"x{scale}; ")
    if scale == 1:
        assert report["mean"]["psnr"] == "inf"  # changes nothing
        assert "input = HR" in report["protocol"]
        return
    whole = Image.open("Mini/c.png")
    hr = whole.crop((0, 0, whole.width // scale * scale, whole.height // scale * scale))
    small = hr.resize((hr.width // scale, hr.height // scale), Image.Resampling.BICUBIC)
    expected = psnr_y(repeated_image(np.asarray(small), scale), np.asarray(hr), scale)
    assert report["mean"]["psnr"] == pytest.approx(expected, abs=0.1)  # Pillow's LR image


@pytest.mark.parametrize(
    ("options", "dims", "large", "kind"),
    [
        ({}, [3, -1, -1], [3, -1, -1], "FP32"),
        ({"layout": "NHWC", "kind": "uint8"}, [-1, -1, 3], [-1, -1, 3], "UINT8"),
        ({"size": (16, 24), "kind": "float16"}, [3, 16, 24], [3, 48, 72], "FP16"),
        ({"channels": 1}, [1, -1, -1], [1, -1, -1], "FP32"),
    ],
)
def test_triton_serves_the_file_as_it_is(
    folder: Path, options: dict[str, object], dims: list[int], large: list[int], kind: str
) -> None:
    repeating(folder / "net.onnx", scale=3, **options)  # type: ignore[arg-type]
    result = agsr("export", "-w", "net.onnx", "--triton", "models")
    assert result.exit_code == 0, result.output
    assert "gives results of x3" in result.stderr
    assert Path("models/net/1/model.onnx").read_bytes() == Path("net.onnx").read_bytes()
    text = Path("models/net/config.pbtxt").read_text()
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    ports = [(config.input[0], "picture", dims), (config.output[0], "enlarged", large)]
    for port, name, size in ports:
        assert (port.name, list(port.dims)) == (name, size)
        assert model_config_pb2.DataType.Name(port.data_type) == f"TYPE_{kind}"
    assert config.max_batch_size == 8


def test_engines_of_foreign_files_are_built_at_first_use_only(folder: Path) -> None:
    repeating(folder / "net.onnx")
    result = agsr("build", "net.onnx", "--target", "sm89")
    assert result.exit_code == 2
    assert "'agsr infer --backend trt -w net.onnx' builds its engine" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "and it needs --triton"),
        (("--triton", "m", "--precision", "fp16"), "remove --precision"),
        (("--triton", "m", "-o", "x.onnx"), "remove --output"),
    ],
)
def test_a_foreign_file_is_not_exported_again(
    folder: Path, arguments: tuple[str, ...], reason: str
) -> None:
    repeating(folder / "net.onnx")
    result = agsr("export", "-w", "net.onnx", *arguments)
    assert result.exit_code == 2
    assert reason in result.stderr
    assert not Path("m").exists()


def _rows(folder: str) -> dict[str, dict[str, object]]:
    lines = [line for p in Path(folder).glob("*.jsonl") for line in p.read_text().splitlines()]
    rows = [json.loads(line) for line in lines]
    assert len({row["source"] for row in rows}) == len(rows)
    return {row["source"]: row for row in rows}


def test_a_manifest_has_the_files_that_failed_before_the_network_was_opened(folder: Path) -> None:
    repeating(folder / "net.onnx", scale=2)
    result = agsr("infer", "--manifest", "m", "-w", "net.onnx", "gone.png", "a.png")
    assert result.exit_code == 1
    assert result.stderr.count("gone.png: no such file") == 1
    found = _rows("m")
    assert {name: row["status"] for name, row in found.items()} == {
        "gone.png": "failed",
        "a.png": "done",
    }
    assert found["gone.png"]["target"] == "gone_x2.png"
    assert found["gone.png"]["error"] == "gone.png: no such file"
    result = agsr("infer", "--manifest", "n", "-w", "net.onnx", "gone.png", "lost.png", "-n")
    assert (result.exit_code, Path("n").exists()) == (1, False)
    result = agsr("infer", "--manifest", "n", "-w", "net.onnx", "gone.png", "lost.png")
    assert result.exit_code == 1
    assert {(name, row["status"], row["target"]) for name, row in _rows("n").items()} == {
        ("gone.png", "failed", None),  # the network's scale is part of the name
        ("lost.png", "failed", None),
    }
