"""`agsr infer` as people use it: again, in pipes, with odd names and options that contradict."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
import tifffile
from click.testing import CliRunner, Result
from conftest import PHOTO, ROOT
from PIL import Image

from agsr.cli import main
from agsr.cli.infer import infer
from agsr.image.encode import FORMATS
from agsr.video.formats import WRITABLE


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two small pictures."""
    photo = Image.open(PHOTO).convert("RGB")
    photo.crop((0, 0, 24, 20)).save(tmp_path / "a.png")
    photo.crop((0, 30, 24, 50)).save(tmp_path / "b.jpg", quality=95)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _infer(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["infer", "--steps", "1", *arguments])


def _sizes(folder: Path) -> dict[str, tuple[int, int]]:
    sizes = {}
    for path in folder.iterdir():
        with Image.open(path) as image:
            sizes[path.name] = image.size
    return sizes


def test_the_same_command_again_has_the_same_results(photos: Path) -> None:
    names = ["a.png", "b.jpg"]
    first = _infer(*names)
    assert first.stdout == "a_x4.png\nb_x4.png\n"
    shell_lists = sorted(path.name for path in photos.iterdir())
    again = _infer(*shell_lists)
    assert (again.exit_code, again.stdout) == (0, first.stdout)
    assert again.stderr.startswith("2 upscaled, 2 skipped as results of earlier runs; ")
    skipping = _infer(*shell_lists, "--skip-existing", "-v")
    assert (skipping.exit_code, skipping.stdout) == (0, "")
    assert skipping.stderr.splitlines() == [
        "a_x4.png: skipped as a result of a.png",
        "b_x4.png: skipped as a result of b.jpg",
        "2 already there, 2 skipped as results of earlier runs",
    ]
    assert len(_sizes(photos)) == 4
    larger = _infer("a_x4.png")  # on purpose
    assert larger.stdout == "a_x4_x4.png\n"


def test_one_bad_input_among_many_is_reported_and_the_rest_is_done(photos: Path) -> None:
    (photos / "folder").mkdir()
    result = _infer("folder", "gone.png", "*.xyz", "a.png", "-v")
    assert (result.exit_code, result.stdout) == (1, "a_x4.png\n")
    lines = result.stderr.splitlines()
    assert lines[0] == "Error: folder: a folder; add -r to upscale the images in it"
    assert lines[1].startswith("Error: *.xyz: no image in it")
    assert re.match(r"(ort|openvino) \(\w+\), 1 step, (fp32|bf16)", lines[2])
    assert lines[3] == "Error: gone.png: no such file"
    assert lines[4].startswith("1 upscaled, 3 failed; ")


def test_where_nothing_can_be_done_no_network_is_loaded(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agsr.cli.network.open_upscaler", None)
    result = _infer("a.png", "--suffix", "")
    assert result.exit_code == 2
    assert result.stderr.endswith(
        "Error: a.png: its result a.png would replace an input; use -o or --suffix\n"
    )
    assert len(_sizes(photos)) == 2


def test_pictures_in_folders_that_are_not_read_are_counted(photos: Path) -> None:
    (photos / "in" / "below").mkdir(parents=True)
    shutil.copy("a.png", "in")
    for name in ("in/scan.psd", "in/below/Wall.EXR", "in/notes.txt", "in/.hidden.psd"):
        Path(name).write_bytes(b"8BPS")
    usual = _infer("-r", "in", "-o", "out")
    assert (usual.exit_code, usual.stdout) == (0, "out/a_x4.png\n")
    assert usual.stderr.startswith("1 upscaled, 2 skipped as unsupported; ")
    planned = _infer("-r", "in", "-o", "out", "--dry-run", "-v")
    assert planned.stderr.splitlines() == [
        "in/scan.psd: skipped, .psd is not supported",
        "in/below/Wall.EXR: skipped, .EXR is not supported",
        "1 to upscale, 2 skipped as unsupported",
    ]


@pytest.mark.usefixtures("photos")
def test_a_dry_run_counts_what_it_does_not_do() -> None:
    _infer("a.png")
    result = _infer("*.*", "--skip-existing", "--dry-run")
    assert result.stdout == "b.jpg → b_x4.png\n"
    assert result.stderr == "1 to upscale, 1 already there, 1 skipped as results of earlier runs\n"


@pytest.mark.parametrize(
    ("size", "note"),
    [
        (["--to", "500x500"], "note: 1 of 2 results are smaller than was asked for: 16 times"),
        (["--max-size", "900"], "note: 2 of 2 results are smaller than was asked for: 16 times"),
        (["--to", "36x999"], ""),
        (["--scale", "2"], ""),
    ],
)
def test_a_result_smaller_than_requested_is_noted_once(
    photos: Path, size: list[str], note: str
) -> None:
    Image.open(PHOTO).crop((0, 0, 40, 40)).save(photos / "b.jpg", quality=95)
    result = _infer("a.png", "b.jpg", *size)
    assert result.exit_code == 0
    notes = [line for line in result.stderr.splitlines() if line.startswith("note")]
    assert len(notes) == bool(note)
    assert all(found.startswith(note) for found in notes)
    assert "note" not in _infer("a.png", "-q", *size).stderr


@pytest.mark.parametrize(
    ("size", "name", "note"),
    [
        ("--to=90x44", "a_fit90x44.png", "has 53x44 pixels, which fit inside 90x44"),
        ("--to=900x900", "a_max900.png", "has 384x320 pixels: 16 times the input is the most"),
        ("--to=96x80", "a_fit96x80.png", ""),
        ("--max-size=60", "a_max60.png", ""),
    ],
)
@pytest.mark.usefixtures("photos")
def test_a_result_of_another_size_than_asked_for_is_reported(
    size: str, name: str, note: str
) -> None:
    result = _infer("a.png", size)
    assert (result.exit_code, result.stdout) == (0, f"{name}\n")
    notes = [line for line in result.stderr.splitlines() if line.startswith("note")]
    assert notes == ([f"note: the result {note}"] if note else [])


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize(
    ("output", "made"),
    [
        ("large", "large/a_x4.png"),
        ("large/", "large/a_x4.png"),
        ("v1.5/", "v1.5/a_x4.png"),
        ("big.png/", "big.png/a_x4.png"),
        ("new/big.WEBP", "new/big.WEBP"),
        ("big.tiff", "big.tiff"),
    ],
)
def test_the_output_is_a_file_by_its_ending_and_a_folder_by_its_slash(
    output: str, made: str
) -> None:
    assert _infer("a.png", "-o", output).stdout == f"{made}\n"
    assert Path(made).is_file()


@pytest.mark.usefixtures("photos")
def test_an_output_that_is_neither_says_how_to_name_a_folder() -> None:
    result = _infer("a.png", "-o", "v1.5")
    assert result.exit_code == 2
    assert "can't write .5; expected one of .png" in result.stderr
    assert result.stderr.endswith("or v1.5/ for a folder\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scale", "2", "--to", "9x9"], "--scale and --to exclude one another"),
        (["-q", "-v"], "--quiet and --verbose exclude one another"),
        (["--half", "--fp32"], "--fp32 and --half exclude one another"),
        (["--half", "--precision", "fp16"], "both set the precision"),
        (["-o", "x.jpg", "--ext", "png"], "--output and --ext name two formats; remove --ext"),
        (["-o", "x.jpg", "--suffix", "-b"], "--output and --suffix both name the result"),
        (["-o", "-", "--suffix", "-b"], "--output and --suffix both name the result"),
        (["--tile", "0", "--halo", "8"], "--tile and --halo contradict one another: --tile 0 cuts"),
        (["--border", "wrap", "--halo", "0"], "--border has no effect: --halo 0 reads nothing"),
    ],
)
@pytest.mark.usefixtures("photos")
def test_options_that_contradict_are_rejected_before_anything_happens(
    arguments: list[str], message: str
) -> None:
    result = _infer("a.png", *arguments)
    assert result.exit_code == 2
    assert f"Error: {message}" in result.stderr or message in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["-o", "x.jpeg", "--ext", "jpg"],
        ["-o", "out/", "--ext", "webp", "--suffix", "-b"],
        ["-o", "x.png", "-f", "png"],
        ["--fp32", "--outscale", "2", "--tile-pad", "8"],
        ["--tile", "0", "--halo", "8", "--border", "mirror"],
        ["--tile", "0", "--halo", "8", "--normal-map"],
    ],
)
@pytest.mark.usefixtures("photos")
def test_options_that_agree_are_taken(arguments: list[str]) -> None:
    result = _infer("-i", "a.png", *arguments)
    assert result.exit_code == 0, result.output


@pytest.mark.usefixtures("photos")
def test_half_is_the_precision() -> None:
    result = _infer("a.png", "--half", "-v")
    assert result.exit_code == 0
    assert result.stderr.startswith("ort (CPUExecutionProvider), 1 step, fp16")


def _process(*arguments: str, **streams: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        [sys.executable, "-m", "agsr", "infer", "--steps", "1", *arguments],
        check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "TERM": "xterm"},
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},
    )


def test_a_stream_into_a_folder_gets_a_name(photos: Path) -> None:
    done = _process("-", "-o", "out/", input=(photos / "b.jpg").read_bytes())
    assert (done.returncode, done.stdout) == (0, b"out/stdin_x4.png\n")


@pytest.mark.usefixtures("photos")
def test_stdin_that_is_the_terminal_is_not_waited_for() -> None:
    master, terminal = pty.openpty()
    try:
        done = _process("-", "-o", "x.png", stdin=terminal)
    finally:
        os.close(master)
        os.close(terminal)
    assert done.returncode == 2
    assert b"'-' reads an image from stdin, which is the terminal" in done.stderr


@pytest.mark.usefixtures("photos")
def test_a_terminal_shows_a_bar_that_leaves_only_the_summary() -> None:
    master, terminal = pty.openpty()
    done = _process("a.png", "b.jpg", "--tile", "8", stderr=terminal)
    os.close(terminal)
    shown = os.read(master, 1 << 20).decode()
    os.close(master)
    assert done.stdout == b"a_x4.png\nb_x4.png\n"
    assert "0/2 files" in shown
    assert "\x1b[2K" in shown  # the bar's line is cleared
    assert shown.splitlines()[-1].startswith("\x1b[1A\x1b[2K2 upscaled; ")


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize("option", ["--separate-alpha", "--normal-map"])
def test_textures_keep_their_data(option: str, caplog: pytest.LogCaptureFixture) -> None:
    pixels = np.full((12, 10, 4), (200, 90, 0, 0), np.uint8)
    Image.fromarray(pixels).save("t.dds")
    assert _infer("t.dds", option, "--fp32").stdout == "t_x4.png\n"
    result = np.asarray(Image.open("t_x4.png"))
    assert not result[..., 3].any()
    colour = result[24, 20, :3].astype(float)
    length = np.linalg.norm(colour / 127.5 - 1)
    assert (abs(length - 1) < 0.02) == (option == "--normal-map")
    assert abs(colour[:2] - (200, 90)).max() < 8
    assert (colour[2] > 200) == (option == "--normal-map")  # of two channels, blue is made
    assert _infer("a.png", "--normal-map").exit_code == 0
    Image.new("L", (8, 8)).save("grey.png")
    failed = _infer("grey.png", "b.jpg", "--normal-map")
    assert failed.exit_code == 1
    assert "Error: grey.png: the picture is grey, and a normal map has red" in failed.stderr
    assert re.search(r"b\.jpg: \d+% of its vectors are far from unit length", caplog.text)
    assert failed.stdout == "b_x4.png\n"


@pytest.mark.usefixtures("photos")
def test_the_command_line_asks_for_masks_and_own_formats() -> None:
    samples = np.full((8, 8, 4), (90, 60, 30, 200), np.uint8)
    tifffile.imwrite("mask.tif", samples, photometric="rgb", extrasamples=["unspecified"])
    done = _infer("mask.tif", "b.jpg", "-o", "own", "--ext", "same", "--separate-alpha")
    assert done.stdout == "own/mask_x4.tif\nown/b_x4.jpg\n"
    with Image.open("own/mask_x4.tif") as image:
        assert image.getpixel((16, 16))[3] == 200  # type: ignore[index]


def test_every_format_can_be_asked_for() -> None:
    option = next(p for p in infer.params if p.name == "ext")
    assert isinstance(option.type, click.Choice)
    named = {FORMATS[f".{ext}"] for ext in option.type.choices if f".{ext}" in FORMATS}
    assert named == set(FORMATS.values())
    assert set(WRITABLE) - {".m4v"} <= {f".{ext}" for ext in option.type.choices}


def test_help_has_the_words_people_look_for() -> None:
    shown = " ".join(_infer("--help").stdout.split())
    for words in (
        *("-i, --input", "-o, --output", "-f, --ext", "--scale, --outscale", "-t, --tile"),
        *("--halo, --tile-pad", "--half", "--fp32", "--skip-existing", "-n, --dry-run"),
        *("agsr infer photo.jpg", "agsr infer - < in.png > out.png"),
    ):
        assert words in shown
    options = shown.partition("Results:")[2]
    for option in ("--ext", "--weights", "--backend", "--tile-pad", "--outscale", "--suffix"):
        assert "default:" in options.partition(f"{option} ")[2].partition(" --")[0], option


@pytest.mark.parametrize(
    ("arguments", "note"),
    [
        (["--separate-alpha"], "note: --separate-alpha had no effect: no input has alpha"),
        (["--halo", "8"], "note: --halo had no effect: no input was cut into tiles"),
        (["--halo", "4", "--tile", "8"], None),
        (["--halo", "8", "--border", "wrap"], None),
        (["--halo", "8", "-q"], None),
        ([], None),
    ],
)
@pytest.mark.usefixtures("photos")
def test_options_that_only_the_inputs_make_useless_are_noted(
    arguments: list[str], note: str | None
) -> None:
    result = _infer("a.png", *arguments)
    assert result.exit_code == 0, result.output
    assert [line for line in result.stderr.splitlines() if "had no effect" in line] == (
        [] if note is None else [note]
    )


def test_alpha_in_one_of_several_inputs_is_an_effect(photos: Path) -> None:
    Image.new("RGBA", (8, 8), (9, 99, 200, 7)).save(photos / "rgba.png")
    result = _infer("a.png", "rgba.png", "--separate-alpha")
    assert result.exit_code == 0, result.output
    assert "had no effect" not in result.stderr


@pytest.mark.usefixtures("photos")
def test_more_threads_than_processors_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agsr.cli.params.usable_cpus", lambda: 2)
    for command in (["infer", "a.png", "-n"], ["eval", "--data", "gone"], ["bench", "--fetch"]):
        result = CliRunner().invoke(main, [*command, "-j", "999"])
        warning = "warning: -j 999: 2 threads will run, one per usable processor"
        assert warning in result.stderr.splitlines()
        assert "warning" not in CliRunner().invoke(main, [*command, "-j", "2"]).stderr


@pytest.mark.parametrize("name", ["-dash.jpg", "-session.jpg", "--tile.png"])
def test_a_name_that_begins_with_a_dash_gets_a_hint(photos: Path, name: str) -> None:
    shutil.copy(photos / "b.jpg", photos / name)
    result = _infer(name)
    assert result.exit_code == 2
    hint = f"A file name that begins with '-' goes behind '--': -- {name}"
    assert result.stderr.rstrip().endswith(hint)
    assert "goes behind" not in _infer("-dish.jpg").stderr
    assert _infer("--", name).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["infer", "a.png", "--sacle", "2"], "Did you mean '--scale'"),
        (["infer", "a.png", "--strips"], "Did you mean '--strip', '--steps'"),
        (["infer", "a.png", "--separate"], "Did you mean '--separate-alpha'"),
        (["bench", "--threds", "2"], "Did you mean '--threads'"),
        (["infr"], "Did you mean 'infer'"),
        (["trian"], "Did you mean 'train'"),
    ],
)
@pytest.mark.usefixtures("photos")
def test_the_closest_name_is_suggested_first(arguments: list[str], meant: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert meant in result.stderr


def test_a_set_that_is_named_twice_is_scored_once(photos: Path) -> None:
    (photos / "set").mkdir()
    Image.open(PHOTO).crop((0, 0, 48, 48)).save(photos / "set" / "a.png")
    command = ["eval", "--set", "set", "--set", "./set", "-s", "1", "--json"]
    result = CliRunner().invoke(main, command)
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 1), result.output


def test_a_scale_that_leaves_nothing_costs_small_inputs_only(photos: Path) -> None:
    Image.new("RGB", (400, 40)).save(photos / "wide.png")
    result = _infer("a.png", "wide.png", "--scale", "0.01")
    assert (result.exit_code, result.stdout) == (1, "wide_x0.01.png\n")
    assert (
        "Error: a.png: the result would have 0x0 pixels: 24x20 by a scale of 0.01" in result.stderr
    )


def test_sizes_of_one_byte_are_in_the_singular(photos: Path) -> None:
    (photos / "one.png").write_bytes(b"x")
    assert "not an image, or truncated (1 byte);" in _infer("one.png").stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a full device")
@pytest.mark.usefixtures("photos")
def test_a_full_or_closed_stdout_is_named_with_how_far_it_came() -> None:
    command = [sys.executable, "-m", "agsr", "infer", "-s", "1", "a.png", "b.jpg"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command, env=environment, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "1 of 2 upscaled; --skip-existing goes on with the rest",
        "Error: stdout: No space left on device; a_x4.png is complete",
    ]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        running.stdout.close()
        assert running.stderr is not None
        errors = running.stderr.read()
    assert errors.endswith("Error: stdout: Broken pipe; a_x4.png is complete\n")
    assert "1 of 2 upscaled" in errors
    assert running.returncode == 1
