"""Full disks, folders that can't be written, pipes that break, names of every kind, real processes.

What fails says so in one line, originals stay as they are, and nothing half-done is left.
"""

from __future__ import annotations

import ctypes
import os
import pty
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import PHOTO, ROOT
from PIL import Image

PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2  # linux/prctl.h, capability.h


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with three small pictures, which everybody may read."""
    (tmp_path / "in").mkdir()
    for number, name in enumerate("abc"):
        place = (number * 40, 0, number * 40 + 40, 40)
        Image.open(PHOTO).crop(place).save(tmp_path / "in" / f"{name}.png")
    for above in (tmp_path, *tmp_path.parents[:2]):
        above.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def infer(folder: Path, onnx_file: Callable[[int], Path]) -> list[str]:
    """The command with a tiny network, which everybody may read."""
    shutil.copy(onnx_file(1), folder / "tiny.onnx")
    return [sys.executable, "-m", "agsr", "infer", "-w", f"{folder}/tiny.onnx"]


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """A folder with room for one result and a half; where nothing may be mounted, it is skipped."""
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=120k", "none", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("nothing may be mounted here; the limit on files' sizes is tried instead")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def _run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        command,
        **{"capture_output": True, "text": True, "check": False, "env": environment, **options},
    )


def _obey_permissions() -> None:
    """An administrator may do everything; the program that is started next may not any more."""
    if os.getuid() == 0:
        for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
            assert ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0


def _originals(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "in").iterdir()}


def test_a_full_disk_costs_the_results_that_do_not_fit(
    folder: Path, infer: list[str], small_disk: Path
) -> None:
    before = _originals(folder)
    done = _run([*infer, "-r", "in", "-o", "disk"])
    assert done.returncode == 1
    assert done.stdout == "disk/a_x4.png\n"
    *errors, summary = done.stderr.splitlines()
    for line, name in zip(errors, ("b", "c"), strict=True):
        assert line.startswith("Error: ")
        assert f"/{name}" in line
    assert "1 upscaled, 2 failed" in summary
    assert [path.name for path in small_disk.iterdir()] == ["a_x4.png"]
    assert _originals(folder) == before


def test_a_limit_on_file_sizes_is_reported_leaving_nothing(folder: Path, infer: list[str]) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))

    done = _run([*infer, "in/a.png", "-o", "out"], preexec_fn=limit)
    assert done.returncode == 1
    assert done.stderr == "Error: out/a_x4.png: can't be written: File too large\n"
    assert list((folder / "out").iterdir()) == []


def test_what_cannot_be_written_is_reported_before_anything_is_computed(
    folder: Path, infer: list[str]
) -> None:
    (folder / "plain").touch()
    done = _run([*infer, "in/a.png", "in/b.png", "-o", "plain/below"])
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "Error: plain/below/a_x4.png: can't be written: Not a directory",
        "Error: plain/below/b_x4.png: can't be written: Not a directory",
        "2 failed",
    ]
    done = _run([*infer, "in/a.png", "in/b.png", "-o", "plain"])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith(
        "Error: 2 inputs can't all become plain; use a folder as the output\n"
    )


def test_without_permission_originals_stay_and_the_reason_is_reported(
    folder: Path, infer: list[str]
) -> None:
    (folder / "locked").mkdir(mode=0o555)
    (folder / "secret.png").write_bytes((folder / "in" / "a.png").read_bytes())
    (folder / "secret.png").chmod(0)
    (folder / "open").mkdir()
    (folder / "open").chmod(0o777)
    for target, source in (("locked", "in/a.png"), ("locked/below", "in/a.png")):
        done = _run([*infer, source, "-o", target], preexec_fn=_obey_permissions)
        assert done.returncode == 1
        assert done.stderr == f"Error: {target}/a_x4.png: can't be written: Permission denied\n"
    assert list((folder / "locked").iterdir()) == []
    done = _run([*infer, "secret.png", "in/b.png", "-o", "open"], preexec_fn=_obey_permissions)
    assert done.stdout == "open/b_x4.png\n"
    error, summary = done.stderr.splitlines()
    assert error == "Error: secret.png: can't be read: Permission denied"
    assert summary.startswith("1 upscaled, 1 failed")


def test_an_input_is_never_its_own_result_whatever_it_is_called(
    folder: Path, infer: list[str]
) -> None:
    before = _originals(folder)
    (folder / "linked.png").symlink_to("in/a.png")
    (folder / "second.png").hardlink_to("in/a.png")
    (folder / "there").symlink_to("in")
    for target in ("linked.png", "second.png", "there/a.png", "./in/../in/a.png", "in//a.png"):
        done = _run([*infer, "in/a.png", "-o", target])
        assert (done.returncode, done.stdout) == (2, ""), target
        assert done.stderr.splitlines()[-1].startswith("Error: in/a.png: its result ")
        assert done.stderr.endswith("use -o or --suffix\n")
    assert _originals(folder) == before
    assert (folder / "linked.png").is_symlink()


def test_an_input_that_vanishes_meanwhile_costs_itself_only(infer: list[str]) -> None:
    command = [*infer, "in/a.png", "in/b.png", "in/c.png", "-o", "out"]
    code = (
        "import sys, pathlib; from agsr.engines.batch import runner; read = runner.read_picture\n"
        "def vanish(path, *rest, **options):\n"
        "    pathlib.Path('in/b.png').unlink(missing_ok=True)\n"
        "    return read(path, *rest, **options)\n"
        "runner.read_picture = vanish\n"
        "from agsr.cli import main; main()"
    )
    done = _run([sys.executable, "-c", code, *command[3:]])
    assert done.returncode == 1
    assert done.stdout == "out/a_x4.png\nout/c_x4.png\n"
    assert done.stderr.startswith("Error: in/b.png: no such file\n2 upscaled, 1 failed")


def test_a_reader_that_goes_away_is_reported_in_one_line(folder: Path, infer: list[str]) -> None:
    Image.effect_noise((120, 120), 90).save(folder / "noise.png")  # more than a pipe holds
    with (folder / "noise.png").open("rb") as stdin, (folder / "said").open("wb") as said:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        options = {"stdin": stdin, "stdout": subprocess.PIPE, "stderr": said, "env": environment}
        with subprocess.Popen([*infer, "-", "--ext", "bmp"], **options) as running:  # type: ignore[call-overload]
            running.stdout.read(10)
            running.stdout.close()
    assert running.returncode == 1
    assert (folder / "said").read_text() == "Error: -: can't be written: Broken pipe\n"


def test_closed_and_full_streams_are_reported(folder: Path, infer: list[str]) -> None:
    picture = (folder / "in" / "a.png").open("rb")
    with picture, Path("/dev/full").open("wb") as full:
        done = _run([*infer, "-"], stdin=picture, capture_output=False, stdout=full, stderr=-1)
    assert done.returncode == 1
    assert done.stderr == "Error: -: can't be written: No space left on device\n"
    shell = " ".join(infer)
    done = _run(["sh", "-c", f"{shell} - <&- -o x.png"])
    assert done.stderr == "Error: -: stdin is empty (0 bytes)\n"
    done = _run(["sh", "-c", f"{shell} in/a.png -o - >&-"])
    assert (done.returncode, done.stderr) == (1, "Error: -: stdout is closed\n")


NAMES = ["-r.png", "two\nlines.png", "a..png", "Ünï 画像.png", "con.png", "~.png", "$x.png"]


def test_names_of_every_kind_are_names(folder: Path, infer: list[str]) -> None:
    raw = [os.fsencode(name) for name in NAMES] + [b"latin-\xe4\xff.png"]
    (folder / "odd").mkdir()
    for name in raw:
        shutil.copy(folder / "in" / "a.png", os.fsencode(folder / "odd") + b"/" + name)
    done = _run([*infer, "-r", "odd", "-o", "out"], text=False)
    assert done.returncode == 0, done.stderr
    names = sorted(name.rpartition(b".")[0] + b"_x4.png" for name in raw)
    assert sorted(os.listdir(b"out")) == names  # noqa: PTH208  # as bytes
    shown = [name.replace(b"\n", rb"\n") for name in names]  # a result a line
    assert sorted(done.stdout.split(b"out/")[1:]) == sorted(name + b"\n" for name in shown)
    done = _run([*infer, "-o", "one.png", "--", b"odd/latin-\xe4\xff.png"])
    assert done.returncode == 0, done.stderr


def test_a_name_too_long_for_its_result_costs_itself_only(folder: Path, infer: list[str]) -> None:
    long = folder / "in" / ("x" * 251 + ".png")
    shutil.copy(folder / "in" / "a.png", long)
    for options in ([], ["--skip-existing"]):
        done = _run([*infer, "-r", "in", *options])
        assert done.returncode == 1
        assert len(list((folder / "in").glob("?_x4.png"))) == 3
        (error,) = (line for line in done.stderr.splitlines() if line.startswith("Error"))
        assert error == f"Error: in/{'x' * 251}_x4.png: can't be written: File name too long"
    done = _run([*infer, str(long), "-o", "short.png"])
    assert done.returncode == 0


@pytest.mark.parametrize("damaged", [False, True])
def test_names_do_not_steer_a_terminal(folder: Path, infer: list[str], damaged: bool) -> None:
    """On a terminal, paths on stdout are escaped, too."""
    name = "in/\x1b]0;title\x07\x1b[31m\u202egnp.png"
    shutil.move(folder / "in" / "a.png", name)
    if damaged:
        Path(name).write_bytes(Path(name).read_bytes()[:60])
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime")]
    frames[0].save("in/\x1b[5m.gif", save_all=True, append_images=frames[1:])
    ours, theirs = pty.openpty()
    command = [*infer, "-q", name, "in/\x1b[5m.gif"]
    done = _run(command, capture_output=False, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert done.returncode == damaged
    for steering in ("\x1b]0", "\x1b[31m", "\x1b[5m", "\x07", "\u202e"):
        assert steering not in shown
    assert r"in/\x1b]0;title\x07\x1b[31m\u202egnp" in shown
    assert r"in/\x1b[5m.gif: holds 2 pictures" in shown


def test_refused_options_do_not_steer_a_terminal(infer: list[str]) -> None:
    for argument in ("--\x1b[31m", "in/\x1b[31m.png"):
        done = _run([*infer, argument])
        assert done.returncode in (1, 2)
        assert "\x1b" not in done.stderr
        assert r"\x1b[31m" in done.stderr
