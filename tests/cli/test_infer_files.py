"""`agsr infer` on files, good and bad: results, sizes, folders, streams, and what is reported."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import pytest
from command_line import agsr, agsr_process
from conftest import PHOTO, ROOT
from PIL import Image

from agsr.engines.upscaler import Upscaler
from agsr.errors import MissingDependencyError
from agsr.image.picture import Picture, RowBands


def test_infer_writes_beside_the_input_and_prints_the_path(small_files: Path) -> None:
    result = agsr("infer", "a.png")
    assert (result.exit_code, result.stdout) == (0, "a_x4.png\n")
    assert cv2.imread(str(small_files / "a_x4.png")).shape == (80, 96, 3)


def test_infer_takes_many_files_options_and_a_folder(small_files: Path) -> None:
    result = agsr(
        *("infer", "a.png", "b.jpg", "-o", "out", "--steps", "2", "--backend", "torch"),
        *("--tile", "8", "--halo", "exact", "--suffix", "-big", "--ext", "webp", "-q"),
    )
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in (small_files / "out").iterdir()) == ["a-big.webp", "b-big.webp"]


def test_steps_change_the_result(small_files: Path) -> None:
    for steps in ("1", "4"):
        assert agsr("infer", "a.png", "-o", f"s{steps}.png", "--steps", steps).exit_code == 0
    assert (small_files / "s1.png").read_bytes() != (small_files / "s4.png").read_bytes()


def test_existing_results_can_be_left_alone(small_files: Path) -> None:
    (small_files / "a_x4.png").write_bytes(b"mine")
    assert agsr("infer", "a.png", "--skip-existing").stdout == ""
    assert (small_files / "a_x4.png").read_bytes() == b"mine"
    (small_files / "a_x4.png").write_bytes(b"")  # another program's, which failed
    assert agsr("infer", "a.png", "--skip-existing").stdout == "a_x4.png\n"
    assert agsr("infer", "a.png").exit_code == 0
    assert (small_files / "a_x4.png").read_bytes() != b"mine"


def test_bad_files_get_one_line_each_and_the_rest_goes_on(small_files: Path) -> None:
    before = {p.name for p in small_files.iterdir()}
    result = agsr("infer", "zero.png", "gone.png", "text.png", "cut.png", "a.png")
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
    assert {p.name for p in small_files.iterdir()} - before == {"a_x4.png"}


def test_running_out_of_memory_costs_one_file_only(
    small_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bands = Upscaler.row_bands

    def scarce(self: Upscaler, given: Picture, *rest: Any) -> RowBands:
        if given.pixels.shape == (20, 24, 3) and not (small_files / "b_x4.png").exists():
            raise MemoryError
        return bands(self, given, *rest)

    monkeypatch.setattr(Upscaler, "row_bands", scarce)
    cv2.imwrite(str(small_files / "c.png"), cv2.imread(str(PHOTO))[:9, :9])
    result = agsr("infer", "a.png", "c.png")
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
@pytest.mark.usefixtures("small_files")
def test_results_have_the_size_that_was_asked_for(
    options: list[str], name: str, size: tuple[int, int]
) -> None:
    if name.startswith("out/"):
        options = [*options, "-o", "out"]
    result = agsr("infer", "a.png", "--steps", "1", *options)
    assert (result.exit_code, result.stdout) == (0, f"{name}\n"), result.output
    with Image.open(name) as image:
        assert image.size == size


def test_folders_are_repeated_and_resumed(small_files: Path) -> None:
    (small_files / "in" / "x").mkdir(parents=True)
    for name in ("in/a.png", "in/x/b.png"):
        shutil.copy(small_files / "a.png", small_files / name)
    options = ("infer", "-r", "in", "-o", "out", "--steps", "1")
    dry = agsr(*options, "--dry-run")
    assert dry.stdout == "in/a.png → out/a_x4.png\nin/x/b.png → out/x/b_x4.png\n"
    assert not (small_files / "out").exists()
    first = agsr(*options)
    assert first.stdout == "out/a_x4.png\nout/x/b_x4.png\n"
    assert re.fullmatch(
        r"2 upscaled; [\d.]+ s, [\d.]+ files/min, [\d.]+ MP/s of results\n", first.stderr
    )
    (small_files / "out" / "a_x4.png").unlink()
    again = agsr(*options, "--skip-existing")
    assert again.stdout == "out/a_x4.png\n"
    assert again.stderr.startswith("1 upscaled, 1 already there; ")
    last = agsr(*options, "--skip-existing", "-q")
    assert (last.exit_code, last.output) == (0, "")
    single = agsr("infer", "in/a.png", "-o", "out", "--skip-existing")
    assert (single.stdout, single.stderr) == ("", "1 already there\n")


def test_streams_are_read_and_written(small_files: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "agsr", "infer", "-", "--ext", "webp", "--steps", "1"],
        input=(small_files / "b.jpg").read_bytes(),
        capture_output=True,
        check=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )
    assert done.stderr == b""
    with Image.open(io.BytesIO(done.stdout)) as image:
        assert (image.format, image.size) == ("WEBP", (96, 80))


def test_what_is_left_out_of_a_file_is_said(small_files: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime")]
    frames[0].save(small_files / "moving.gif", save_all=True, append_images=frames[1:])
    done = agsr_process("infer", "moving.gif", "--steps", "1", cwd=small_files)
    assert done.stdout == "moving_x4.png\n"
    assert done.stderr == "moving.gif: holds 2 pictures; only the first is used\n"


def test_skipped_files_are_named_if_they_were_named(small_files: Path) -> None:
    (small_files / "._a.png").touch()
    (small_files / "link.png").symlink_to("a.png")
    (small_files / "in").mkdir()
    (small_files / "in" / ".b.png").touch()
    shutil.copy(small_files / "a.png", small_files / "in" / "c.png")
    done = agsr("infer", "-n", "-r", "a.png", "link.png", "._a.png", "in")
    assert "skipped: ._a.png: a system file by its name, not an image" in done.stderr
    assert "skipped: link.png: the same file as a.png" in done.stderr
    assert ".b.png" not in done.stderr
    counts = "2 to upscale, 2 skipped as hidden, 1 skipped as other names of inputs"
    assert done.stderr.endswith(counts + "\n")
    assert "skipped: in/.b.png: hidden" in agsr("infer", "-n", "-v", "-r", "in").stderr


def test_a_result_that_may_be_of_another_input_is_reported(small_files: Path) -> None:
    shutil.copy(small_files / "b.jpg", small_files / "a.jpg")
    assert agsr("infer", "a.jpg", "-s", "1").stderr == ""
    again = "warning: a_x4.png may be the result of a.jpg"
    assert again in agsr("infer", "a.png", "-s", "1", "--skip-existing").stderr
    refused = agsr("infer", "a.png", "-w", "nobody")
    assert again not in refused.stderr  # nothing is replaced
    assert "no weights named 'nobody'" in refused.stderr
    replaced = agsr("infer", "a.png", "-s", "1", "-q")
    assert (replaced.exit_code, replaced.stdout) == (0, "a_x4.png\n")
    assert f"{again}, and is replaced; --suffix or -o results in both\n" in replaced.stderr


def test_huge_inputs_are_refused_with_the_number(small_files: Path) -> None:
    Image.new("1", (20_000, 10_000)).save(small_files / "huge.png")
    result = agsr("infer", "huge.png")
    assert result.exit_code == 1
    assert "20000x10000 is 200000000 pixels, more than 134217728" in result.stderr
    assert "--max-pixels 200000000" in result.stderr


def test_names_with_brackets_are_names(small_files: Path) -> None:
    (small_files / "a.png").rename(small_files / "[bold]a[x].png")
    assert agsr("infer", "[bold]a[x].png").stdout == "[bold]a[x]_x4.png\n"


def test_a_loop_of_links_costs_one_file_only(small_files: Path) -> None:
    (small_files / "loop.png").symlink_to("loop.png")
    result = agsr("infer", "loop.png", "a.png")
    assert result.exit_code == 1
    assert result.stdout == "a_x4.png\n"
    assert "Error: loop.png: can't be read" in result.stderr


def test_decoders_do_not_write_to_stderr_themselves(small_files: Path) -> None:
    done = agsr_process("infer", "cut.png", cwd=small_files)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: cut.png: truncated: its chunk IDAT of 8192 bytes")
    assert len(done.stderr.splitlines()) == 1


def test_damaged_metadata_costs_a_line_not_the_result(small_files: Path) -> None:
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + b"\xff" * 40
    Image.open(PHOTO).crop((0, 0, 16, 16)).save(small_files / "odd.jpg", exif=exif, quality=95)
    done = agsr_process("infer", "odd.jpg", "--steps", "1", cwd=small_files)
    assert (done.returncode, done.stdout) == (0, "odd_x4.png\n")
    assert done.stderr == "odd.jpg: its EXIF data is damaged; 3 tags are lost\n"


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize(
    ("ext", "name"),
    [("jpeg", "a_x4.jpg"), ("TIFF", "a_x4.tif"), (".webp", "a_x4.webp"), ("targa", "a_x4.tga")],
)
def test_formats_have_their_other_names(ext: str, name: str) -> None:
    result = agsr("infer", "a.png", "-n", "-f", ext)
    assert (result.exit_code, result.stdout) == (0, f"a.png → {name}\n")


def test_results_that_can_never_be_written_are_found_before_the_work(
    small_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manifest below a file, and an address whose package is missing."""

    def lack(*_: object, **__: object) -> None:
        raise MissingDependencyError("s3:// needs the package 's3fs'")

    monkeypatch.setattr("agsr.store.filesystems.require", lack)
    monkeypatch.setattr("agsr.cli.network.open_upscaler", None)
    requests = {
        ("--manifest", "b.jpg"): "b.jpg: can't be written",
        ("-o", "s3://bucket/a.png"): "needs the package 's3fs'",
    }
    for options, message in requests.items():
        result = agsr("infer", "a.png", *options)
        assert result.exit_code == 1
        assert message in result.stderr
    assert not (small_files / "a_x4.png").exists()
