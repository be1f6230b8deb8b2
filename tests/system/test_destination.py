"""Links, modes and owners of written files; no privilege is needed."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from agsr.engines.video.segments import open_segments
from agsr.image import write_picture
from agsr.image.picture import Picture
from agsr.model.checkpoint import Checkpoint, save_checkpoint
from agsr.system import destination
from agsr.system.atomic_file import check_writable, complete_file, complete_folder, existing_folder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="modes and owners are POSIX's")


def _write(path: Path, text: str = "new") -> None:
    check_writable(path)
    with complete_file(path) as temporary:
        temporary.write_text(text)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_link_stays_and_the_file_behind_it_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    target, near, link = tmp_path / "far" / "a", tmp_path / "b", tmp_path / "c"
    target.write_text("old")
    near.symlink_to("far/a")
    link.symlink_to("b")
    _write(link)
    assert (link.is_symlink(), near.is_symlink(), target.is_symlink()) == (True, True, False)
    assert target.read_text() == "new"
    assert _names(tmp_path / "far") == ["a"]
    assert existing_folder(link) == (tmp_path / "far").resolve()


def test_a_dangling_link_creates_its_target(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("later")
    _write(link)
    assert link.is_symlink()
    assert (tmp_path / "later").read_text() == "new"


@pytest.mark.parametrize(
    ("points_to", "error"),
    [("missing/file", FileNotFoundError), ("link", OSError), (".", IsADirectoryError)],
)
def test_links_that_name_no_file_are_rejected_before_the_work(
    tmp_path: Path, points_to: str, error: type[OSError]
) -> None:
    link = tmp_path / "link"
    link.symlink_to(points_to)
    with pytest.raises(error):
        check_writable(link)
    with pytest.raises(error), complete_file(link):
        pytest.fail("the work began")
    assert _names(tmp_path) == ["link"]
    assert link.readlink() == Path(points_to)


@pytest.mark.parametrize("kind", ["picture", "checkpoint"])
def test_every_kind_of_file_follows_links(
    tmp_path: Path, checkpoint: Checkpoint, kind: str
) -> None:
    target, link = tmp_path / "target.bin", tmp_path / "link.png"
    target.write_bytes(b"old")
    target.chmod(0o640)
    link.symlink_to(target)
    if kind == "picture":
        write_picture(Picture(np.zeros((4, 4, 3), np.uint8)), link)
    else:
        save_checkpoint(checkpoint, link)
    assert link.is_symlink()
    assert target.read_bytes() != b"old"
    assert target.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o755])
def test_a_replaced_file_has_the_mode_of_the_old_one(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    path.chmod(mode)
    with complete_file(path) as temporary:
        temporary.write_text("new")
        assert temporary.stat().st_mode & 0o777 == 0o600  # a secret stays one meanwhile
    assert path.stat().st_mode & 0o777 == mode
    assert path.read_text() == "new"


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_new_file_has_the_mode_that_the_user_wants(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        _write(tmp_path / "a")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == mode


def test_the_owner_stays_and_without_the_privilege_a_warning_names_what_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path, changed = tmp_path / "a", list[tuple[int, int]]()
    path.write_text("old")
    theirs = os.stat_result((0o100644, 0, 0, 1, 4321, 1234, 0, 0, 0, 0))
    old = destination.Replaced(path, theirs)
    monkeypatch.setattr(os, "chown", lambda _, user, group: changed.append((user, group)))
    old.transfer_to(path)
    assert changed == [(-1, 1234), (4321, -1)]
    assert not caplog.records

    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refused)
    old.transfer_to(path)
    assert "its group and owner can't be restored" in caplog.text


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root may give files away")
def test_the_owner_is_that_of_the_old_file(tmp_path: Path) -> None:
    path, link = tmp_path / "a.png", tmp_path / "link.png"
    path.write_text("old")
    link.symlink_to(path)
    os.chown(path, 4321, 1234)
    path.chmod(0o640)
    write_picture(Picture(np.zeros((2, 2, 3), np.uint8)), link)
    found = path.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (4321, 1234, 0o640)
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(not hasattr(os, "setxattr"), reason="Linux's attributes")
def test_attributes_of_the_user_stay(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    try:
        os.setxattr(path, "user.origin", b"camera")
    except OSError:
        pytest.skip("this file system has no attributes")
    _write(path)
    assert os.getxattr(path, "user.origin") == b"camera"


@pytest.mark.skipif(not hasattr(os, "setxattr"), reason="Linux's attributes")
def test_an_attribute_that_cannot_be_read_is_lost_with_a_warning_and_the_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    copied = dict[str, bytes]()

    def read(_: Path, name: str) -> bytes:
        if name == "user.locked":
            raise PermissionError(1, "Operation not permitted")
        return name.encode()

    names = ["user.a", "user.locked", "security.selinux", "user.z"]
    monkeypatch.setattr(os, "listxattr", lambda _: names)
    monkeypatch.setattr(os, "getxattr", read)
    monkeypatch.setattr(os, "setxattr", lambda _, name, value: copied.update({name: value}))
    path = tmp_path / "a"
    path.write_text("old")
    _write(path)
    assert copied == {"user.a": b"user.a", "user.z": b"user.z"}
    assert caplog.messages == [f"{path}: replaced, but its user.locked can't be restored"]


PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1  # linux/prctl.h, linux/capability.h
PROTECTED = """
import sys
from pathlib import Path
from agsr.system.atomic_file import check_writable, complete_file
for action in (check_writable, lambda path: complete_file(path).__enter__()):
    try:
        action(Path(sys.argv[1]))
    except PermissionError as error:
        print(error.filename)
"""


def _obey_modes() -> None:
    """An administrator may write everything; the program that is started next may not."""
    if os.getuid() == 0:
        assert ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's capabilities")
def test_a_write_protected_file_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    path.chmod(0o444)
    done = subprocess.run(
        [sys.executable, "-c", PROTECTED, str(path)],
        preexec_fn=_obey_modes,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{path}\n{path}\n"
    assert path.read_text() == "old"
    assert _names(tmp_path) == ["a"]


def test_other_hard_links_have_the_old_content(tmp_path: Path) -> None:
    path, second = tmp_path / "a", tmp_path / "b"
    path.write_text("old")
    second.hardlink_to(path)
    _write(path)
    assert (path.read_text(), second.read_text()) == ("new", "old")


def test_devices_and_pipes_are_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", list[str]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    _write(pipe)
    reader.join(timeout=60)
    assert read == ["new"]
    assert pipe.is_fifo()
    link = tmp_path / "null"
    link.symlink_to(os.devnull)
    _write(link)
    assert Path(os.devnull).is_char_device()
    assert _names(tmp_path) == ["null", "pipe"]


def _fill_the_disk(path: Path) -> None:
    with complete_folder(path) as temporary:
        (temporary / "half").touch()
        raise OSError(28, "disk full")


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="disk"):
        _fill_the_disk(tmp_path / "a")
    assert _names(tmp_path) == []
    with complete_folder(tmp_path / "a") as temporary:
        (temporary / "below").mkdir()
        (temporary / "below" / "whole").touch()
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a" / "below" / "whole").exists()
    with pytest.raises(OSError, match="not empty"), complete_folder(tmp_path / "a") as temporary:
        (temporary / "other").touch()
    assert _names(tmp_path) == ["a"]


def test_a_folder_called_fd_is_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "fd" / "a.txt"
    path.parent.mkdir()
    for text in ("first", "2nd"):
        with complete_file(path) as part:
            part.write_text(text)
    assert path.read_text() == "2nd"


def _owned(mode: int, uid: int) -> os.stat_result:
    return os.stat_result((mode, 0, 0, 1, uid, 0, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("mode", "folder", "link", "follows"),
    [
        (0o1777, 0, 7, False),
        (0o1777, 0, 5, True),  # one's own
        (0o1777, 7, 7, True),  # of the folder's owner
        (0o1777, 0, 0, True),
        (0o1775, 0, 7, True),
        (0o777, 0, 7, True),
    ],
)
def test_links_count_by_the_rule_of_protected_symlinks(
    mode: int, folder: int, link: int, follows: bool
) -> None:
    found = destination._may_follow(_owned(0o120777, link), _owned(0o40000 | mode, folder), 5)
    assert found == follows


@pytest.mark.parametrize("target", ["file", "missing", "/dev/null"])
def test_a_link_of_another_user_in_a_sticky_folder_is_not_followed(
    tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("old")
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    planted = shared / "planted"
    planted.symlink_to(target if target.startswith("/") else Path("..") / target)
    (tmp_path / "mine").symlink_to(planted)
    _write(planted)  # one's own
    (tmp_path / "file").write_text("old")
    (tmp_path / "missing").unlink(missing_ok=True)
    lstat = Path.lstat

    def of_another(path: Path) -> os.stat_result:
        values = list(lstat(path))
        values[4] += path == planted
        return os.stat_result(values)

    monkeypatch.setattr(Path, "lstat", of_another)
    for link in (planted, tmp_path / "mine"):
        for write in (check_writable, _write):
            with pytest.raises(PermissionError, match="a link of another user"):
                write(link)
    assert (tmp_path / "file").read_text() == "old"
    assert not (tmp_path / "missing").exists()
    assert _names(tmp_path / "shared") == ["planted"]


def test_a_planted_folder_of_segments_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "a.mkv.agsr-segments").symlink_to("far")
    monkeypatch.setattr(destination, "_may_follow", lambda *_: False)
    with (
        pytest.raises(PermissionError, match="a link of another user"),
        open_segments(tmp_path / "a.mkv", {}, "nut"),
    ):
        pass
    assert _names(tmp_path / "far") == []


@pytest.mark.parametrize("when", ["opened", "locked"])
def test_a_folder_that_is_cleaned_up_before_it_is_locked_is_made_again(
    tmp_path: Path, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    removed = list[Path]()

    def clean_up() -> None:
        if not removed:
            (folder,) = tmp_path.glob(".agsr-*.folder")
            folder.rmdir()
            removed.append(folder)

    open_, flock = os.open, fcntl.flock

    def cleaned_before_open(path: object, *arguments: object) -> int:
        if str(path).endswith(".folder"):
            clean_up()
        return open_(path, *arguments)  # type: ignore[call-overload, no-any-return]

    def cleaned_before_lock(descriptor: int, how: int) -> None:
        if how == fcntl.LOCK_EX:
            clean_up()
        flock(descriptor, how)

    if when == "opened":
        monkeypatch.setattr(os, "open", cleaned_before_open)
    else:
        monkeypatch.setattr(fcntl, "flock", cleaned_before_lock)
    with complete_folder(tmp_path / "made") as folder:
        (folder / "a").write_text("a")
    assert len(removed) == 1
    assert (tmp_path / "made" / "a").read_text() == "a"
    assert _names(tmp_path) == ["made"]
