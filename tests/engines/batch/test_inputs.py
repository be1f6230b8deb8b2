"""Which files a batch reads: folders, patterns, and what is skipped or rejected in them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from planning import jobs_of, make_image, problems_of, targets_of

from agsr.engines.batch.inputs import Skipped
from agsr.engines.batch.plan import plan


@pytest.mark.usefixtures("tree")
def test_a_folder_among_files_costs_itself_only() -> None:
    assert problems_of("in", "in/a.jpg") == [
        "in: a folder; add -r to upscale the images in it",
        None,
    ]


def test_unsupported_pictures_are_reported_once(tmp_path: Path) -> None:
    (tmp_path / "in" / "below").mkdir(parents=True)
    unsupported = [tmp_path / "in" / "a.jxl", tmp_path / "in" / "below" / "b.psd"]
    for path in (*unsupported, tmp_path / "in" / "notes.txt"):
        path.touch()
    reported: list[Path] = []
    sources = [tmp_path / "in", tmp_path / "in" / "below"]
    jobs = plan(sources, recursive=True, on_unsupported=reported.append)
    assert all("no image in it" in str(job.problem) for job in jobs)
    assert reported == unsupported


@pytest.mark.usefixtures("tree")
def test_files_of_the_system_are_no_inputs() -> None:
    make_image("cat.png")
    names = ("._cat.png", "Thumbs.db", "desktop.ini")
    for name in names:
        Path(name).write_bytes(b"\0")
    assert targets_of("cat.png", *names) == ["cat_x4.png"]
    assert targets_of("._cat.png") == ["._cat_x4.png"]  # named alone, it is meant, and will fail


@pytest.mark.usefixtures("tree")
def test_found_files_are_never_replaced() -> None:
    Path("in/x/b.PNG").rename("in/x/b.png")
    problems = problems_of("in", recursive=True, suffix="")
    assert [problem is None for problem in problems] == [True, False, True]


@pytest.mark.usefixtures("tree")
def test_linked_folders_are_not_followed() -> None:
    Path("in/x/loop").symlink_to("..", target_is_directory=True)
    Path("in/x/y/loop").symlink_to(Path("in").resolve(), target_is_directory=True)
    assert len(targets_of("in", recursive=True)) == 3
    assert len(targets_of("in/**/*.webp")) == 1


@pytest.mark.usefixtures("tree")
def test_a_folder_that_cannot_be_listed_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("y"):
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr("os.scandir", scandir)
    problems = problems_of("in", recursive=True)
    assert problems == [None, None, "in/x/y: can't be read: Permission denied"]


@pytest.mark.usefixtures("tree")
def test_patterns_that_the_shell_left_are_expanded(tree: Path) -> None:
    assert targets_of("in/*.jpg", "in/**/*.webp") == ["in/a_x4.png", "in/x/y/c_x4.png"]
    assert targets_of(f"{tree}/in/x/*") == [f"{tree}/in/x/b_x4.png"]
    assert targets_of("in/**/*.[pP]*", "in/.h*/*.png") == ["in/x/b_x4.png", "in/.hidden/d_x4.png"]
    problems = problems_of("in/*.gif", "in/a.jpg")
    assert problems[0] is not None
    assert problems[0].startswith("in/*.gif: no image in it; expected names like *.avif")
    assert problems[1] is None


def test_a_folder_without_images_is_an_error(tree: Path) -> None:
    (tree / "empty").mkdir()
    (problem,) = problems_of("empty", recursive=True)
    assert problem is not None
    assert problem.startswith("empty: no image in it; expected names like")


@pytest.mark.usefixtures("tree")
def test_segments_of_a_video_that_was_broken_off_are_no_inputs() -> None:
    segment = Path("in/clip_x4.mov.agsr-segments/frames-00000000-00000047.mov")
    segment.parent.mkdir(parents=True)
    segment.touch()
    for options in (["in"], ["in/**/*"], ["in/*/*.mov"]):
        jobs = jobs_of(*options, recursive=True, videos=True)
        assert segment not in [job.source for job in jobs]


@pytest.mark.usefixtures("tree")
def test_patterns_take_files_only_and_without_an_ending_images_only() -> None:
    assert targets_of("in/*", output=Path("out")) == ["out/a_x4.png"]
    assert targets_of("in/*.*", output=Path("out")) == ["out/a_x4.png", "out/notes_x4.png"]
    (problem,) = problems_of("i*", output=Path("out"))
    assert problem is not None
    assert problem.startswith("i*: no image in it")


@pytest.mark.usefixtures("tree")
def test_all_files_that_are_not_read_are_reported() -> None:
    make_image("in/.hidden.png")
    make_image("in/._a.png")
    Path("in/.notes").touch()
    Path("in/x/z.png").symlink_to("b.PNG")
    Path("again.png").symlink_to("in/x/b.PNG")
    make_image("._b.png")
    found: list[Skipped] = []
    sources = ("in", "in/x/b.PNG", "again.png", "._b.png", "Thumbs.db")
    jobs_of(*sources, recursive=True, on_skipped=found.append)
    assert {(str(f.path), f.named) for f in found} == {
        ("in/.hidden.png", False),
        ("in/._a.png", False),
        ("in/x/z.png", False),
        ("again.png", True),
        ("._b.png", True),
        ("Thumbs.db", True),
    }
    assert [f.reason for f in found if f.named][1:] == [
        "a system file by its name, not an image"
    ] * 2
