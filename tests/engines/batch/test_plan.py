from __future__ import annotations

import time
from pathlib import Path

import pytest
from planning import jobs_of, make_image, problems_of, targets_of

from agsr.engines.batch.plan import Job, plan
from agsr.errors import ImageRequestError


def test_results_lie_beside_their_inputs() -> None:
    assert targets_of("a/cat.jpg", "dog.png") == ["a/cat_x4.png", "dog_x4.png"]
    assert targets_of("a.b.jpg", suffix="-big", extension=".tif") == ["a.b-big.tif"]


def test_output_is_a_file_for_one_input_and_a_folder_for_many(tmp_path: Path) -> None:
    assert targets_of("cat.jpg", output=Path("out/big.webp")) == ["out/big.webp"]
    assert targets_of("x/cat.jpg", "dog.png", output=tmp_path) == [
        f"{tmp_path}/cat_x4.png",
        f"{tmp_path}/dog_x4.png",
    ]
    folder = tmp_path / "odd.png"  # an existing folder is a folder, whatever its name
    folder.mkdir()
    assert targets_of("cat.jpg", output=folder) == [f"{folder}/cat_x4.png"]


def test_an_existing_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(ImageRequestError, match="can't all become"):
        targets_of("a.png", "b.png", output=tmp_path / "out")
    with pytest.raises(ImageRequestError, match="can't write a file without suffix"):
        targets_of("a.png", output=tmp_path / "out")


def test_mistakes_are_found_before_anything_is_computed() -> None:
    with pytest.raises(
        ImageRequestError, match=r"2 inputs can't all become out\.png; use a folder as the output"
    ):
        targets_of("a.png", "b.png", output=Path("out.png"))
    for options in ({"extension": ".gif"}, {"output": Path("big.gif")}):
        with pytest.raises(ImageRequestError, match=r"can't write \.gif"):
            targets_of("a.png", **options)
    with pytest.raises(ImageRequestError, match=r"can't write \.5; .* or v1\.5/ for a folder"):
        targets_of("a.png", output=Path("v1.5"))
    assert targets_of("a.png", output=Path("v1.5"), folder=True) == ["v1.5/a_x4.png"]
    assert targets_of("a.png", output=Path("big.png"), folder=True) == ["big.png/a_x4.png"]


def test_an_input_is_never_replaced_and_costs_its_own_result_only() -> None:
    reported = "a.png: its result a.png would replace an input; use -o or --suffix"
    assert problems_of("a.png", "b.jpg", suffix="") == [reported, None]
    (problem,) = problems_of("a.png", output=Path("./x/../a.png"))
    assert problem is not None
    assert "would replace an input" in problem


def test_names_that_collide_are_distinguished_by_their_folders_in_any_order() -> None:
    pairs = [
        ("x/a.png", "out/x/a_x4.png"),
        ("y/a.png", "out/y/a_x4.png"),
        ("b.png", "out/b_x4.png"),
    ]
    for order in (pairs, pairs[::-1]):
        sources, targets = zip(*order, strict=True)
        assert targets_of(*sources, output=Path("out")) == list(targets)
    assert targets_of("x/y/a.png", "x/a.png", output=Path("out")) == [
        "out/y/a_x4.png",
        "out/a_x4.png",
    ]
    deep = ("2024/jan/a.png", "2025/jan/a.png", "2025/jan/a.jpg")
    assert targets_of(*deep, output=Path("out")) == [
        "out/2024/jan/a_x4.png",
        "out/2025/jan/a.png_x4.png",
        "out/2025/jan/a.jpg_x4.png",
    ]


def test_names_that_still_collide_cost_those_files_only() -> None:
    jobs = jobs_of("a.jpg", "a.png", "a.jpg.png", "b.png")
    assert [job.problem is None for job in jobs] == [False, True, False, True]
    assert jobs[0].problem == (
        "a.jpg: its result a.jpg_x4.png would overwrite that of a.jpg.png; "
        "upscale them one by one, each with its own -o"
    )


def test_the_same_input_twice_is_one_result() -> None:
    assert targets_of("a.png", "./x/../a.png") == ["a_x4.png"]


def test_paths_in_suffixes_are_rejected() -> None:
    with pytest.raises(ImageRequestError, match="part of a file name"):
        targets_of("a.png", suffix="/../evil")


def test_stdin_becomes_stdout_unless_a_file_is_named() -> None:
    assert plan([Path("-")], extension=".webp") == [Job(Path("-"), Path("-"), ".webp")]
    assert plan([Path("-")], Path("a.jpg")) == [Job(Path("-"), Path("a.jpg"), ".jpg")]
    assert plan([Path("a.png")], Path("-")) == [Job(Path("a.png"), Path("-"), ".png")]
    assert [str(job.target) for job in plan([Path("-")], Path("out/"))] == ["out/stdin_x4.png"]
    assert targets_of("-", "a.png", suffix="_x2") == ["stdin_x2.png", "a_x2.png"]
    with pytest.raises(ImageRequestError, match="2 inputs can't all become -"):
        targets_of("a.png", "b.png", output=Path("-"))


@pytest.mark.usefixtures("tree")
def test_folders_are_repeated_below_the_output() -> None:
    assert targets_of("in", output=Path("out"), recursive=True) == [
        "out/a_x4.png",
        "out/x/b_x4.png",
        "out/x/y/c_x4.png",
    ]
    assert targets_of("in", recursive=True)[1] == "in/x/b_x4.png"


@pytest.mark.usefixtures("tree")
def test_trees_with_the_same_names_are_distinguished() -> None:
    make_image("also/x/b.png")
    assert targets_of("in/x", "also", output=Path("out"), recursive=True) == [
        "out/b_x4.png",
        "out/y/c_x4.png",
        "out/x/b_x4.png",
    ]
    named = targets_of("in", "also", output=Path("out"), recursive=True)
    assert [named[1], named[3]] == [
        "out/x/b.PNG_x4.png",
        "out/x/b.png_x4.png",
    ]
    Path("also/x/b.png").rename("also/x/b.PNG")
    named = targets_of("in", "also", output=Path("out"), recursive=True)
    assert [named[1], named[3]] == [
        "out/in/x/b_x4.png",
        "out/also/x/b_x4.png",
    ]


def test_the_time_to_plan_grows_as_the_number_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tree that is played, so that no disk is measured; with a result beside every image."""
    monkeypatch.setattr("agsr.engines.batch.earlier.may_be_result_of", lambda *_: True)

    def seconds(folders: int) -> float:
        names = [f"{n}{end}" for n in range(100) for end in (".jpg", "_x4.png")]
        tree = [(f"{tmp_path}/{n}", list[str](), list(names)) for n in range(folders)]
        monkeypatch.setattr("agsr.engines.batch.inputs.os.walk", lambda *_, **__: iter(tree))
        started = time.process_time()
        jobs = plan([tmp_path], tmp_path / "out", recursive=True)
        assert len(jobs) == folders * 100
        return time.process_time() - started

    seconds(1)
    few, many = (min(seconds(folders) for _ in range(3)) for folders in (5, 40))
    assert many / few < 24  # 8 times the files; the square of it would be 64


def test_names_that_differ_in_their_ending_only_keep_it() -> None:
    assert targets_of("a.jpg", "a.png", "b.png") == ["a.jpg_x4.png", "a.png_x4.png", "b_x4.png"]


def test_each_input_may_keep_its_format() -> None:
    assert targets_of("a.png", "b.TGA", "c.jfif", "d.dds", "e.mp4", extension=None) == [
        *("a_x4.png", "b_x4.tga", "c_x4.jfif", "d_x4.png", "e_x4.mp4")
    ]
    assert targets_of("b.tga", extension=None, output=Path("large")) == ["large/b_x4.tga"]
    assert targets_of("a.png", "f.jpg", extension=None, quality=80) == ["a_x4.png", "f_x4.jpg"]
    with pytest.raises(ImageRequestError, match="PNG has no quality"):
        targets_of("a.png", "b.tga", extension=None, quality=80)


def test_a_quality_that_the_format_lacks_is_reported_at_once() -> None:
    assert targets_of("a.png", extension=".jpg", quality=80) == ["a_x4.jpg"]
    with pytest.raises(ImageRequestError, match="PNG has no quality"):
        targets_of("a.png", quality=80)
