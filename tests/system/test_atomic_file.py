"""Files that appear when they are complete, and leftovers of killed processes."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import ROOT

from agsr.system import atomic_file
from agsr.system.atomic_file import complete_file, remove_abandoned

WRITE_AND_WAIT = """
import sys, pathlib
from agsr.system.atomic_file import complete_file
with complete_file(pathlib.Path("result")) as temporary:
    temporary.write_text("complete")
    print(temporary.name, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    atomic_file._remove_abandoned.cache_clear()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _writer() -> subprocess.Popen[str]:
    running = subprocess.Popen(
        [sys.executable, "-c", WRITE_AND_WAIT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    )
    assert running.stdout is not None
    assert running.stdout.readline().startswith(".agsr-")
    return running


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_leftovers_of_a_killed_process_are_removed_by_the_next_writer(folder: Path) -> None:
    with _writer() as killed:
        killed.kill()
    (part,) = _names(folder)
    assert part.endswith(".part")
    with complete_file(folder / "other") as temporary:
        temporary.touch()
    assert _names(folder) == ["other"]


def test_files_being_written_by_another_process_stay(folder: Path) -> None:
    with _writer() as living:
        remove_abandoned(folder)
        with complete_file(folder / "other") as temporary:
            temporary.touch()
        assert len(_names(folder)) == 2
        living.communicate()
    assert _names(folder) == ["other", "result"]
    assert (folder / "result").read_text() == "complete"


def test_files_of_other_names_and_links_stay(folder: Path) -> None:
    names = [".agsr-notes.part", ".agsr-0123456789abcdef.part.txt", "x.agsr-0123456789abcdef.part"]
    for name in names:
        (folder / name).touch()
    (folder / "precious").touch()
    link, directory = (folder / f".agsr-{digit * 16}.part" for digit in "01")
    link.symlink_to("precious")
    directory.mkdir()
    remove_abandoned(folder)
    assert _names(folder) == sorted([*names, "precious", link.name, directory.name])


def test_a_file_removed_before_it_is_locked_is_created_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, taken = fcntl.flock, []

    def late(descriptor: int, operation: int) -> None:
        if not taken:
            taken.extend(folder.iterdir())
            taken[0].unlink()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with complete_file(folder / "result") as temporary:
        temporary.write_text("complete")
    assert taken
    assert _names(folder) == ["result"]


@pytest.mark.usefixtures("all_cpus")
def test_threads_of_one_process_leave_one_another_alone(folder: Path) -> None:
    def write(number: int) -> None:
        for turn in range(20):
            with complete_file(folder / f"{number}-{turn}") as temporary:
                atomic_file._remove_abandoned.cache_clear()
                remove_abandoned(folder)
                temporary.write_text("complete")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(_names(folder)) == 80
    assert all(path.read_text() == "complete" for path in folder.iterdir())


def test_a_full_disk_is_reported_with_the_results_name(folder: Path) -> None:
    target = folder / "result.json"

    def write(error: OSError) -> None:
        with complete_file(target):
            raise error

    for error in (
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EIO, "Input/output error", str(folder / f".agsr-{'0' * 16}.part")),
    ):
        with pytest.raises(OSError, match=r"result\.json") as caught:
            write(error)
        assert caught.value.filename == str(target)
    with pytest.raises(OSError, match="other") as caught:  # of what is read, say
        write(OSError(errno.ENOENT, "No such file", "other"))
    assert list(folder.iterdir()) == []


def test_a_temporary_folder_goes_at_the_end_and_after_a_kill(folder: Path) -> None:
    with atomic_file.temporary_folder(folder / "spool") as temporary:
        (temporary / "below").mkdir()
        remove_abandoned(folder / "spool")
        assert temporary.exists()
    assert _names(folder / "spool") == []
    program = """
import os, pathlib
from agsr.system.atomic_file import temporary_folder
with temporary_folder(pathlib.Path("spool")) as temporary:
    (temporary / "left").touch()
    os.kill(os.getpid(), 9)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=False)
    assert len(_names(folder / "spool")) == 1
    atomic_file._remove_abandoned.cache_clear()
    with atomic_file.temporary_folder(folder / "spool"):
        assert len(_names(folder / "spool")) == 1
    assert _names(folder / "spool") == []
