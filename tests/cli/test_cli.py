from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import pytest
from click.testing import CliRunner, Result
from conftest import PHOTO, ROOT, tiny_checkpoint
from PIL import Image

from agsr.cli import main
from agsr.cli.infer import infer
from agsr.engines.upscaler import Upscaler
from agsr.image.decode import MAX_PIXELS
from agsr.image.picture import Picture, RowBands
from agsr.model.checkpoint import Checkpoint, blend, load_checkpoint, save_checkpoint


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with small pictures, good and bad."""
    image = cv2.imread(str(PHOTO))
    cv2.imwrite(str(tmp_path / "a.png"), image[:20, :24])
    cv2.imwrite(str(tmp_path / "b.jpg"), image[30:50, :24])
    Image.new("RGBA", (8, 8), (9, 99, 200, 0)).save(tmp_path / "rgba.png")
    (tmp_path / "zero.png").touch()
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "text.onnx").write_text("not a network")
    (tmp_path / "LRx4").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut.png").write_bytes(PHOTO.read_bytes()[:20000])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _agsr(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_infer_writes_beside_the_input_and_prints_the_path(photos: Path) -> None:
    result = _agsr("infer", "a.png")
    assert (result.exit_code, result.stdout) == (0, "a_x4.png\n")
    assert cv2.imread(str(photos / "a_x4.png")).shape == (80, 96, 3)


def test_infer_takes_many_files_options_and_a_folder(photos: Path) -> None:
    result = _agsr(
        *("infer", "a.png", "b.jpg", "-o", "out", "--steps", "2", "--backend", "torch"),
        *("--tile", "8", "--halo", "exact", "--suffix", "-big", "--ext", "webp", "-q"),
    )
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in (photos / "out").iterdir()) == ["a-big.webp", "b-big.webp"]


def test_steps_change_the_result(photos: Path) -> None:
    for steps in ("1", "4"):
        assert _agsr("infer", "a.png", "-o", f"s{steps}.png", "--steps", steps).exit_code == 0
    assert (photos / "s1.png").read_bytes() != (photos / "s4.png").read_bytes()


def test_existing_results_can_be_left_alone(photos: Path) -> None:
    (photos / "a_x4.png").write_bytes(b"mine")
    assert _agsr("infer", "a.png", "--skip-existing").stdout == ""
    assert (photos / "a_x4.png").read_bytes() == b"mine"
    (photos / "a_x4.png").write_bytes(b"")  # another program's, which failed
    assert _agsr("infer", "a.png", "--skip-existing").stdout == "a_x4.png\n"
    assert _agsr("infer", "a.png").exit_code == 0
    assert (photos / "a_x4.png").read_bytes() != b"mine"


def test_bad_files_get_one_line_each_and_the_rest_goes_on(photos: Path) -> None:
    before = {p.name for p in photos.iterdir()}
    result = _agsr("infer", "zero.png", "gone.png", "text.png", "cut.png", "a.png")
    assert result.exit_code == 1
    assert result.stdout == "a_x4.png\n"
    lines = result.stderr.splitlines()
    assert [line.split(":")[1].strip() for line in lines[:4]] == [
        "zero.png",
        "gone.png",
        "text.png",
        "cut.png",
    ]
    assert [line.partition(";")[0] for line in lines[4:]] == ["1 upscaled, 4 failed"]
    assert {p.name for p in photos.iterdir()} - before == {"a_x4.png"}


def test_running_out_of_memory_costs_one_file_only(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bands = Upscaler.row_bands

    def scarce(self: Upscaler, given: Picture, *rest: Any) -> RowBands:
        if given.pixels.shape == (20, 24, 3) and not (photos / "b_x4.png").exists():
            raise MemoryError
        return bands(self, given, *rest)

    monkeypatch.setattr(Upscaler, "row_bands", scarce)
    cv2.imwrite(str(photos / "c.png"), cv2.imread(str(PHOTO))[:9, :9])
    result = _agsr("infer", "a.png", "c.png")
    assert result.exit_code == 1
    assert result.stdout == "c_x4.png\n"
    assert "Error: a.png: out of memory; use a smaller --tile" in result.stderr


@pytest.mark.parametrize(
    ("options", "name", "size"),
    [
        (["--scale", "2"], "a_x2.png", (48, 40)),
        (["--scale", "3"], "a_x3.png", (72, 60)),
        (["--scale", "1.5"], "a_x1.5.png", (36, 30)),
        (["--max-size", "60"], "a_max60.png", (60, 50)),
        (["--scale", "8"], "a_x8.png", (192, 160)),
        (["--to", "3840x2160"], "a_fit3840x2160.png", (384, 320)),
        (["--to", "80X20", "--suffix", ""], "out/a.png", (24, 20)),
    ],
)
@pytest.mark.usefixtures("photos")
def test_results_have_the_size_that_was_asked_for(
    options: list[str], name: str, size: tuple[int, int]
) -> None:
    if name.startswith("out/"):
        options = [*options, "-o", "out"]
    result = _agsr("infer", "a.png", "--steps", "1", *options)
    assert (result.exit_code, result.stdout) == (0, f"{name}\n"), result.output
    with Image.open(name) as image:
        assert image.size == size


def test_folders_are_repeated_and_resumed(photos: Path) -> None:
    (photos / "in" / "x").mkdir(parents=True)
    for name in ("in/a.png", "in/x/b.png"):
        shutil.copy(photos / "a.png", photos / name)
    options = ("infer", "-r", "in", "-o", "out", "--steps", "1")
    dry = _agsr(*options, "--dry-run")
    assert dry.stdout == "in/a.png → out/a_x4.png\nin/x/b.png → out/x/b_x4.png\n"
    assert not (photos / "out").exists()
    first = _agsr(*options)
    assert first.stdout == "out/a_x4.png\nout/x/b_x4.png\n"
    assert re.fullmatch(
        r"2 upscaled; [\d.]+ s, [\d.]+ files/min, [\d.]+ MP/s of results\n", first.stderr
    )
    (photos / "out" / "a_x4.png").unlink()
    again = _agsr(*options, "--skip-existing")
    assert again.stdout == "out/a_x4.png\n"
    assert again.stderr.startswith("1 upscaled, 1 already there; ")
    last = _agsr(*options, "--skip-existing", "-q")
    assert (last.exit_code, last.output) == (0, "")
    single = _agsr("infer", "in/a.png", "-o", "out", "--skip-existing")
    assert (single.stdout, single.stderr) == ("", "1 already there\n")


def test_streams_are_read_and_written(photos: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "agsr", "infer", "-", "--ext", "webp", "--steps", "1"],
        input=(photos / "b.jpg").read_bytes(),
        capture_output=True,
        check=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )
    assert done.stderr == b""
    with Image.open(io.BytesIO(done.stdout)) as image:
        assert (image.format, image.size) == ("WEBP", (96, 80))


def test_what_is_left_out_of_a_file_is_said(photos: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime")]
    frames[0].save(photos / "moving.gif", save_all=True, append_images=frames[1:])
    done = _process("infer", "moving.gif", "--steps", "1", cwd=photos)
    assert done.stdout == "moving_x4.png\n"
    assert done.stderr == "moving.gif: holds 2 pictures; only the first is used\n"


def test_skipped_files_are_named_if_they_were_named(photos: Path) -> None:
    (photos / "._a.png").touch()
    (photos / "link.png").symlink_to("a.png")
    (photos / "in").mkdir()
    (photos / "in" / ".b.png").touch()
    shutil.copy(photos / "a.png", photos / "in" / "c.png")
    done = _agsr("infer", "-n", "-r", "a.png", "link.png", "._a.png", "in")
    assert "skipped: ._a.png: a system file by its name, not an image" in done.stderr
    assert "skipped: link.png: the same file as a.png" in done.stderr
    assert ".b.png" not in done.stderr
    counts = "2 to upscale, 2 skipped as hidden, 1 skipped as other names of inputs"
    assert done.stderr.endswith(counts + "\n")
    assert "skipped: in/.b.png: hidden" in _agsr("infer", "-n", "-v", "-r", "in").stderr


def test_a_result_that_may_be_of_another_input_is_reported(photos: Path) -> None:
    shutil.copy(photos / "b.jpg", photos / "a.jpg")
    assert _agsr("infer", "a.jpg", "-s", "1").stderr == ""
    again = "warning: a_x4.png may be the result of a.jpg"
    assert again in _agsr("infer", "a.png", "-s", "1", "--skip-existing").stderr
    replaced = _agsr("infer", "a.png", "-s", "1", "-q")
    assert (replaced.exit_code, replaced.stdout) == (0, "a_x4.png\n")
    assert f"{again}, and is replaced; --suffix or -o results in both\n" in replaced.stderr


def test_huge_inputs_are_refused_with_the_number(photos: Path) -> None:
    Image.new("1", (20_000, 10_000)).save(photos / "huge.png")
    result = _agsr("infer", "huge.png")
    assert result.exit_code == 1
    assert "20000x10000 is 200000000 pixels, more than 134217728" in result.stderr
    assert "--max-pixels 200000000" in result.stderr


def test_names_with_brackets_are_names(photos: Path) -> None:
    (photos / "a.png").rename(photos / "[bold]a[x].png")
    assert _agsr("infer", "[bold]a[x].png").stdout == "[bold]a[x]_x4.png\n"


def test_a_loop_of_links_costs_one_file_only(photos: Path) -> None:
    (photos / "loop.png").symlink_to("loop.png")
    result = _agsr("infer", "loop.png", "a.png")
    assert result.exit_code == 1
    assert result.stdout == "a_x4.png\n"
    assert "Error: loop.png: can't be read" in result.stderr


def test_decoders_do_not_write_to_stderr_themselves(photos: Path) -> None:
    done = _process("infer", "cut.png", cwd=photos)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: cut.png: truncated: its chunk IDAT of 8192 bytes")
    assert len(done.stderr.splitlines()) == 1


def test_damaged_metadata_costs_a_line_not_the_result(photos: Path) -> None:
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + b"\xff" * 40
    Image.open(PHOTO).crop((0, 0, 16, 16)).save(photos / "odd.jpg", exif=exif, quality=95)
    done = _process("infer", "odd.jpg", "--steps", "1", cwd=photos)
    assert (done.returncode, done.stdout) == (0, "odd_x4.png\n")
    assert all(line.startswith("odd.jpg: ") for line in done.stderr.splitlines())


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["infer"], "Missing argument 'IN...'"),
        (["infer", "a.png", "--steps", "0"], "0 is not in the range 1<=x<=16"),
        (["infer", "a.png", "--tile", "big"], "neither 'auto' nor a number"),
        (["infer", "a.png", "--to", "big"], "'big' is not WIDTHxHEIGHT, like 1920x1080"),
        (["infer", "a.png", "--to", "0x9"], "'0x9' is not WIDTHxHEIGHT"),
        (["infer", "a.png", "--scale", "nan"], "scale is nan; expected above 0"),
        (["infer", "a.png", "--scale", "17"], "17.0 is not in the range 0<x<=16"),
        (["infer", "a.png", "--scale", "2", "--max-size", "9"], "exclude one another"),
        (["infer", "a.png", "--backend", "magic"], "'magic' is not one of"),
        (
            ["infer", "a.png", "--normal-map", "--separate-alpha"],
            "overlap: --normal-map implies --separate-alpha",
        ),
        (["infer", "a.png", "--normal-map", "--quality", "80", "-f", "webp"], "of any length"),
        (["infer", "a.png", "--normal-map", "-f", "avif"], "needs a lossless format; AVIF is none"),
        (["infer", "a.png", "-o", "b.png", "--ext", "same"], "name two formats; remove --ext"),
        (["export", "--precision", "int3"], "'int3' is not one of"),
        (["upscale"], "No such command 'upscale'"),
        (["train", "--set", "width"], "'width' is not NAME=VALUE"),
        (["train", "--model", "edsr"], "'edsr' is not one of"),
        (["export", "--blend", "1.5"], "1.5 is not in the range"),
    ],
)
def test_wrong_usage_exits_2_with_a_hint(arguments: list[str], message: str) -> None:
    result = _agsr(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["infer", "rgba.png", "--separate-alpha", "-f", "bmp"], "Error: rgba.png: its alpha is"),
        (["infer", "/dev/zero", "-o", "x.png"], "Error: /dev/zero: not a regular file"),
        (["infer", "*.xyz"], "Error: *.xyz: no image in it"),
        (["export", "-s", "1", "-o", "a.png/x.onnx"], "Error: a.png: Not a directory"),
        (["train", "--data", "a.png", "--val", "."], "Error: a.png: expected a folder"),
        (["infer", "a.png", "-w", "text.onnx"], "Error: text.onnx: not an ONNX file"),
        (["infer", "gone.png"], "Error: gone.png: no such file"),
    ],
)
def test_what_is_understood_and_fails_exits_1_with_one_line(
    arguments: list[str], message: str
) -> None:
    result = _agsr(*arguments)
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith(message)
    assert len(result.stderr.splitlines()) == 1


_TRAIN = ["train", "--data", ".", "--val", "."]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["infer", "a.png", "-w", "nobody"], "no weights named 'nobody'; shipped: gan"),
        (["infer", "a.png", "-w", "nobody", "-b", "torch"], "no weights named 'nobody'"),
        (["export", "-w", "nobody"], "no weights named 'nobody'"),
        (["export", "--blend", "0.5", "--with", "nobody"], "no weights named 'nobody'"),
        (["eval", "-w", "nobody"], "no weights named 'nobody'"),
        (["bench", "-w", "nobody"], "no weights named 'nobody'"),
        ([*_TRAIN, "--stage", "gan", "--init", "nobody"], "no weights named 'nobody'"),
        (["eval", "--set", "Set99"], "no image set 'Set99'"),
        (["eval"], "with --data or AGSR_DATA. Type: agsr eval --fetch\n"),
        (["bench", "--set", "Set14", "-s", "1"], ". Type: agsr bench --set Set14 -s 1 --fetch\n"),
        (["bench", "--table1"], "--fetch (needs agsr[bench]), or name the folder that holds Set5"),
        (["bench", "--set", "Set99"], "no image set 'Set99'"),
        (["infer", "a.png", "-b", "magic"], "'magic' is not one of"),
        (["bench", "-b", "magic"], "no backend 'magic'; known: "),
        (["bench", "-b", "ort:magic"], "no backend 'ort:magic'; known: "),
        (["infer", "a.png", "--precision", "fp8"], "'fp8' is not one of"),
        (["bench", "--precision", "fp8"], "'fp8' is not one of"),
        (["bench", "--hints", "x=1", "--model", "gone.onnx"], "hints are 'x=1'; expected"),
        (["bench", "--plot", "x.gif", "--set", "."], "x.gif: expected a name in .svg"),
        (["infer", "a.png", "-b", "openvino", "--device", "cpu"], "--device does not belong to"),
        (["infer", "a.png", "-b", "ort", "--device", "mps"], "no --device mps; known: cpu, cuda"),
        (["infer", "a.png", "-b", "trt", "--device", "cuda:٣"], "no --device cuda:٣; known: cuda"),
        (["infer", "a.png", "-b", "trt", "--threads", "2"], "--threads is for ort and openvino"),
        (["infer", "a.png", "-b", "trt", "--device", ""], "the device is empty"),
        (["infer", "a.png", "b.jpg", "-o", "x.png"], "2 inputs can't all become x.png"),
        (["infer", "a.png", "-o", "x.gif"], "can't write .gif"),
        (["infer", "a.png", "--quality", "80"], "a_x4.png: PNG has no quality setting"),
        (["infer", "a.png", "--suffix", "x/y"], "a suffix is part of a file name"),
        (["infer", "."], "Error: .: a folder; add -r to upscale the images in it"),
        (["infer", "b.jpg", "-o", "b.jpg"], "b.jpg: its result b.jpg would replace an input"),
        (["infer", "a.png", "-o", "hard.png"], "a.png: its result hard.png would replace an"),
        (["infer", "a.png", "b.jpg", "-f", "same", "--suffix", ""], "b.jpg: its result b.jpg"),
        (["infer", "a.png", "-w", "gone.onnx"], "gone.onnx: no such file"),
        (["infer", "a.png", "-w", "./gone.onnx", "-b", "openvino"], "gone.onnx: no such file"),
        (["infer", "a.png", "-w", "gone.engine"], "gone.engine: no such file"),
        (["infer", "a.png", "-w", "b.jpg"], "b.jpg: an image by its name, not weights; shipped"),
        (["infer", "a.png", "-w", "./b.jpg"], "b.jpg: an image by its name, not weights; shipped"),
        (["infer", "a.png", "-w", "./b.jpg", "-b", "torch"], "b.jpg: an image by its name, not"),
        (["infer", "a.png", "-w", "x/a.mp4", "-b", "ort"], "x/a.mp4: no such file"),
        (["infer", "a.png", "--steps", "7"], "ship as fp32 ONNX for 1, 2, 3, 4, 5, 6 steps, not"),
        (["infer", "a.png", "--steps", "7", "-b", "ort"], "steps, not for 7; make it with: agsr"),
        (
            ["infer", "a.png", "-b", "torch", "--precision", "int8"],
            "torch runs in fp32, fp16, bf16",
        ),
        (["infer", "a.png", "-b", "torch", "--device", "warp"], "can't use the device 'warp'"),
        (["eval", "--data", "gone"], "gone: no such folder"),
        (["eval", "--set", "LRx4"], "LRx4: a folder of LR images by its name; name the folder"),
        (["eval", "--set", "empty"], "empty: no images in this folder"),
        (["eval", "--lpips", "gone.npz"], "gone.npz: no such file"),
        (["bench", "--steps", "9", "-b", "ort,openvino"], "steps, not for 9; make it with"),
        (["bench", "--precision", "int8", "-b", "torch"], "torch runs in fp32, fp16, bf16, not"),
        (["export", "-w", "gone.safetensors"], "gone.safetensors: no such file"),
        (["export", "--opset", "18", "--precision", "bf16"], "opset is 18; expected 22 to"),
        (
            ["export", "--precision", "int8", "--calibrate", "gone"],
            "gone: no such file; expected a",
        ),
        (["export", "--triton", "x", "-o", "a b.onnx"], "'a b' can't name a Triton model"),
        (["train", "--data", "gone.tar", "--val", "."], "gone.tar: no such file; expected a"),
        (["train", "--data", ".", "--val", "gone"], "gone: no such file; expected a folder"),
        (["train", "--data", ".", "--val", ".", "--features", "gone"], "gone: no such file"),
        ([*_TRAIN, "--device", "warp"], "can't use the device 'warp'"),
        ([*_TRAIN, "--schedule", "99x1"], "the schedule doesn't fit the model"),
        (["build", "gone.onnx"], "gone.onnx: no such file"),
        ([*_TRAIN, "--set", "a=1"], "invalid configuration"),
        ([*_TRAIN, "--stage", "gan", "--model", "srcnn"], "invalid configuration"),
        ([*_TRAIN, "--schedule", "much"], "invalid configuration"),
    ],
)
def test_a_wrong_request_exits_2(
    photos: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AGSR_DATA", raising=False)
    (photos / "hard.png").hardlink_to(photos / "a.png")
    before = sorted(photos.rglob("*"))
    result = _agsr(*arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert result.stdout == ""
    assert sorted(photos.rglob("*")) == before


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize(
    ("ext", "name"),
    [("jpeg", "a_x4.jpg"), ("TIFF", "a_x4.tif"), (".webp", "a_x4.webp"), ("targa", "a_x4.tga")],
)
def test_formats_have_their_other_names(ext: str, name: str) -> None:
    result = _agsr("infer", "a.png", "-n", "-f", ext)
    assert (result.exit_code, result.stdout) == (0, f"a.png → {name}\n")


@pytest.mark.usefixtures("photos")
def test_export_and_infer_with_the_exported_file() -> None:
    result = _agsr("export", "--steps", "2", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["path"] == "psnr-2.onnx"
    assert max(row["largest"] for row in report["parity"]) <= 1e-4
    assert _agsr("infer", "a.png", "-w", "psnr-2.onnx").exit_code == 0
    shown = _agsr("export", "--steps", "1", "--precision", "fp16")
    assert "psnr-1-fp16.onnx" in shown.stdout
    assert "1x3x1x37" in shown.stdout


@pytest.mark.usefixtures("photos")
def test_export_blends_weights(checkpoint: Checkpoint, checkpoint_file: Path) -> None:
    other = tiny_checkpoint(seed=1)
    save_checkpoint(other, Path("other.safetensors"))
    options = ("--weights", str(checkpoint_file), "--with", "other.safetensors", "--steps", "1")
    result = _agsr("export", *options, "--blend", "0.25", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["path"] == "tiny-other-0.25-1.onnx"
    expected = blend(checkpoint, other, 0.25).weights_hash
    assert report["metadata"]["weights_hash"] == expected


def test_export_overwrites_no_picture(photos: Path) -> None:
    before = (photos / "a.png").read_bytes()
    result = _agsr("export", "--steps", "1", "-o", "a.png")
    assert (result.exit_code, "-o a.png does not end in .onnx" in result.stderr) == (2, True)
    assert (photos / "a.png").read_bytes() == before


@pytest.mark.usefixtures("photos")
def test_training_and_exporting_a_network_of_another_shape() -> None:
    options = ("--data", "set", "--val", "set", "--schedule", "1x2@8/2", "-o", "run")
    Path("set").mkdir()
    shutil.copy(PHOTO, "set")
    result = _agsr("train", *options, "--set", "width=8", "--set", "validate_every=1")
    assert result.exit_code == 0, result.output
    assert "finished: 2 of 2 iterations, PSNR-Y 1:" in result.stderr
    assert load_checkpoint(Path("run/last.safetensors")).config.width == 8  # type: ignore[attr-defined]
    assert "1 step, " in _agsr("export", "-w", "run/last.safetensors", "-s", "1").stdout


def test_eval_prints_a_table_or_json(photos: Path) -> None:
    (photos / "set").mkdir()
    shutil.copy(PHOTO, photos / "set")
    table = _agsr("eval", "--set", "set", "--steps", "1")
    assert table.exit_code == 0, table.output
    assert "astronaut" in table.stdout
    assert "Bicubic" in table.stdout
    report = json.loads(_agsr("eval", "--set", "set", "--steps", "1", "--json").stdout)
    assert report["rows"][0]["psnr"] > report["rows"][0]["bicubic_psnr"]


def test_doctor_shows_advice_with_its_brackets() -> None:
    result = _agsr("doctor")
    assert result.exit_code == 0
    assert "runs: CPUExecutionProvider" in result.stdout
    assert "[cpu]" in result.stdout or "[gpu]" in result.stdout or "[pycuda]" in result.stdout


def test_help_lists_every_command_in_full_the_common_ones_first() -> None:
    shown = _agsr("--help").stdout
    lines = shown[shown.index("Commands:") :].splitlines()[1:]
    order = ["infer", "doctor", "eval", "bench", "train", "export", "build", "cache"]
    assert [line.split()[0] for line in lines] == order
    assert all(line.endswith(".") and not line.endswith("...") for line in lines)


def test_version_and_help() -> None:
    assert "agsr, version" in _agsr("--version").stdout
    for command in ("infer", "export", "eval", "train", "doctor"):
        assert _agsr(command, "--help").exit_code == 0
    shown = _agsr("infer", "--help").stdout
    assert all(f"\n{title}:\n" in shown for title in ("Results", "Size", "Many files", "Network"))
    assert f"[default:\n{' ' * 33}{MAX_PIXELS}]" in shown
    for option in infer.params:
        assert all(name in shown for name in option.opts if name.startswith("-"))


NO_TORCH = """
import sys
for name in ("torch", "safetensors", "onnx", "onnxscript"):
    sys.modules[name] = None
from agsr.cli import main
from agsr.cli.infer import infer
from agsr.image.decode import MAX_PIXELS
from agsr.engines.upscaler import Upscaler
from agsr.image.picture import Picture
main()
"""


def test_infer_needs_no_torch(photos: Path) -> None:
    done = _process("infer", "a.png", cwd=photos, program=NO_TORCH)
    assert (done.returncode, done.stdout, done.stderr) == (0, "a_x4.png\n", "")


def test_what_needs_torch_says_so(photos: Path) -> None:
    for command in (["export"], ["train"], ["infer", "a.png", "--backend", "torch"]):
        done = _process(*command, cwd=photos, program=NO_TORCH)
        assert done.returncode == 1
        assert "needs the package 'torch', which is not installed" in done.stderr
        assert "pip install 'agsr[train]'" in done.stderr


def _process(
    *arguments: str, cwd: Path, program: str | None = None
) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    start = ["-m", "agsr"] if program is None else ["-c", program]
    return subprocess.run(
        [sys.executable, *start, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )


def test_ctrl_c_exits_130_with_one_line(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("agsr.cli.infer_run.open_upscaler", interrupted)
    result = _agsr("infer", str(photos / "a.png"))
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")
