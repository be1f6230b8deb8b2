from __future__ import annotations

from pathlib import Path

import pytest

from agsr.engines.jobs import Job, plan
from agsr.errors import ImageError


def _targets(*sources: str, **options: object) -> list[str]:
    return [str(j.target) for j in plan([Path(s) for s in sources], **options)]  # type: ignore[arg-type]


def test_results_lie_beside_their_inputs() -> None:
    assert _targets("a/cat.jpg", "dog.png") == ["a/cat_x4.png", "dog_x4.png"]
    assert _targets("a.b.jpg", suffix="-big", extension=".tif") == ["a.b-big.tif"]


def test_output_is_a_file_for_one_input_and_a_folder_for_many(tmp_path: Path) -> None:
    assert _targets("cat.jpg", output=Path("out/big.webp")) == ["out/big.webp"]
    assert _targets("x/cat.jpg", "dog.png", output=tmp_path) == [
        f"{tmp_path}/cat_x4.png",
        f"{tmp_path}/dog_x4.png",
    ]
    folder = tmp_path / "odd.png"  # an existing folder is a folder, whatever its name
    folder.mkdir()
    assert _targets("cat.jpg", output=folder) == [f"{folder}/cat_x4.png"]


def test_an_existing_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(ImageError, match="can't all become"):
        _targets("a.png", "b.png", output=tmp_path / "out")
    with pytest.raises(ImageError, match="can't write a file without suffix"):
        _targets("a.png", output=tmp_path / "out")


def test_mistakes_are_found_before_anything_is_computed() -> None:
    with pytest.raises(ImageError, match=r"2 inputs can't all become out\.png; name a folder"):
        _targets("a.png", "b.png", output=Path("out.png"))
    with pytest.raises(ImageError, match="would both become"):
        _targets("x/a.png", "y/a.png", output=Path("out"))
    with pytest.raises(ImageError, match="would replace an input"):
        _targets("a.png", suffix="")
    with pytest.raises(ImageError, match="would replace an input"):
        _targets("a.png", output=Path("./x/../a.png"))
    for options in ({"extension": ".gif"}, {"output": Path("big.gif")}):
        with pytest.raises(ImageError, match=r"can't write \.gif"):
            _targets("a.png", **options)


def test_the_same_input_twice_is_one_result() -> None:
    assert _targets("a.png", "./x/../a.png") == ["a_x4.png"]


def test_paths_in_suffixes_are_refused() -> None:
    with pytest.raises(ImageError, match="not of a path"):
        _targets("a.png", suffix="/../evil")


def test_stdin_becomes_stdout_unless_a_file_is_named() -> None:
    assert plan([Path("-")], extension=".webp") == [Job(Path("-"), Path("-"), ".webp")]
    assert plan([Path("-")], Path("a.jpg")) == [Job(Path("-"), Path("a.jpg"), ".jpg")]
    assert plan([Path("a.png")], Path("-")) == [Job(Path("a.png"), Path("-"), ".png")]
    with pytest.raises(ImageError, match="2 inputs can't all become -"):
        _targets("a.png", "b.png", output=Path("-"))


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with images in folders, and what is none."""
    for name in ("in/a.jpg", "in/x/b.PNG", "in/x/y/c.webp", "in/notes.txt", "in/.hidden/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("tree")
def test_folders_are_repeated_below_the_output() -> None:
    assert _targets("in", output=Path("out"), recursive=True) == [
        "out/a_x4.png",
        "out/x/b_x4.png",
        "out/x/y/c_x4.png",
    ]
    assert _targets("in", recursive=True)[1] == "in/x/b_x4.png"
    with pytest.raises(ImageError, match="in: a folder; -r upscales the images in it"):
        _targets("in")


def test_results_in_the_folder_are_no_inputs_of_the_next_run(tree: Path) -> None:
    for options in ({}, {"output": Path("in/results")}):
        first = _targets("in", recursive=True, **options)
        for target in first:
            (tree / target).parent.mkdir(exist_ok=True)
            (tree / target).touch()
        assert _targets("in", recursive=True, **options)[: len(first)] == first
        for target in first:
            (tree / target).unlink()


@pytest.mark.usefixtures("tree")
def test_found_files_are_never_replaced() -> None:
    Path("in/x/b.PNG").rename("in/x/b.png")
    with pytest.raises(ImageError, match=r"b\.png: the result would replace an input"):
        _targets("in", recursive=True, suffix="")


@pytest.mark.usefixtures("tree")
def test_patterns_that_the_shell_left_are_expanded() -> None:
    assert _targets("in/*.jpg", "in/**/*.webp") == ["in/a_x4.png", "in/x/y/c_x4.png"]
    with pytest.raises(ImageError, match=r"in/\*\.gif: no image in it"):
        _targets("in/*.gif")


def test_a_folder_without_images_is_an_error(tree: Path) -> None:
    (tree / "empty").mkdir()
    with pytest.raises(ImageError, match="empty: no image in it; expected names like"):
        _targets("empty", recursive=True)


def test_names_that_differ_in_their_ending_only_keep_it() -> None:
    assert _targets("a.jpg", "a.png", "b.png") == ["a.jpg_x4.png", "a.png_x4.png", "b_x4.png"]


def test_a_quality_that_the_format_lacks_is_told_at_once() -> None:
    assert _targets("a.png", extension=".jpg", quality=80) == ["a_x4.jpg"]
    with pytest.raises(ImageError, match="PNG has no quality"):
        _targets("a.png", quality=80)


@pytest.mark.usefixtures("tree")
def test_patterns_take_files_only_and_without_an_ending_images_only() -> None:
    assert _targets("in/*", output=Path("out")) == ["out/a_x4.png"]
    assert _targets("in/*.*", output=Path("out")) == ["out/a_x4.png", "out/notes_x4.png"]
    with pytest.raises(ImageError, match="no image in it"):
        _targets("i*", output=Path("out"))
