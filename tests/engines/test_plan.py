from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from agsr.engines.batch.inputs import Skipped
from agsr.engines.batch.plan import Job, plan
from agsr.errors import ImageError


def _jobs(*sources: str, **options: object) -> list[Job]:
    return plan([Path(s) for s in sources], **options)  # type: ignore[arg-type]


def _targets(*sources: str, **options: object) -> list[str]:
    jobs = _jobs(*sources, **options)
    assert [job.problem for job in jobs] == [None] * len(jobs)
    return [str(job.target) for job in jobs]


def _problems(*sources: str, **options: object) -> list[str | None]:
    return [job.problem for job in _jobs(*sources, **options)]


def _image(name: str, width: int = 6, height: int = 4) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (width, height)).save(name)


def _made(jobs: Sequence[Job], scale: int = 4) -> None:
    """Stands in for a run."""
    for job in jobs:
        with Image.open(job.source) as image:
            _image(str(job.target), image.width * scale, image.height * scale)


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
    with pytest.raises(
        ImageError, match=r"2 inputs can't all become out\.png; use a folder as the output"
    ):
        _targets("a.png", "b.png", output=Path("out.png"))
    for options in ({"extension": ".gif"}, {"output": Path("big.gif")}):
        with pytest.raises(ImageError, match=r"can't write \.gif"):
            _targets("a.png", **options)
    with pytest.raises(ImageError, match=r"can't write \.5; .* or v1\.5/ for a folder"):
        _targets("a.png", output=Path("v1.5"))
    assert _targets("a.png", output=Path("v1.5"), folder=True) == ["v1.5/a_x4.png"]
    assert _targets("a.png", output=Path("big.png"), folder=True) == ["big.png/a_x4.png"]


def test_an_input_is_never_replaced_and_costs_its_own_result_only() -> None:
    reported = "a.png: its result a.png would replace an input; use -o or --suffix"
    assert _problems("a.png", "b.jpg", suffix="") == [reported, None]
    (problem,) = _problems("a.png", output=Path("./x/../a.png"))
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
        assert _targets(*sources, output=Path("out")) == list(targets)
    assert _targets("x/y/a.png", "x/a.png", output=Path("out")) == [
        "out/y/a_x4.png",
        "out/a_x4.png",
    ]
    deep = ("2024/jan/a.png", "2025/jan/a.png", "2025/jan/a.jpg")
    assert _targets(*deep, output=Path("out")) == [
        "out/2024/jan/a_x4.png",
        "out/2025/jan/a.png_x4.png",
        "out/2025/jan/a.jpg_x4.png",
    ]


def test_names_that_still_collide_cost_those_files_only() -> None:
    jobs = _jobs("a.jpg", "a.png", "a.jpg.png", "b.png")
    assert [job.problem is None for job in jobs] == [False, True, False, True]
    assert jobs[0].problem == (
        "a.jpg: its result a.jpg_x4.png would overwrite that of a.jpg.png; "
        "upscale them one by one, each with its own -o"
    )


def test_the_same_input_twice_is_one_result() -> None:
    assert _targets("a.png", "./x/../a.png") == ["a_x4.png"]


def test_paths_in_suffixes_are_rejected() -> None:
    with pytest.raises(ImageError, match="part of a file name"):
        _targets("a.png", suffix="/../evil")


def test_stdin_becomes_stdout_unless_a_file_is_named() -> None:
    assert plan([Path("-")], extension=".webp") == [Job(Path("-"), Path("-"), ".webp")]
    assert plan([Path("-")], Path("a.jpg")) == [Job(Path("-"), Path("a.jpg"), ".jpg")]
    assert plan([Path("a.png")], Path("-")) == [Job(Path("a.png"), Path("-"), ".png")]
    assert [str(job.target) for job in plan([Path("-")], Path("out/"))] == ["out/stdin_x4.png"]
    assert _targets("-", "a.png", suffix="_x2") == ["stdin_x2.png", "a_x2.png"]
    with pytest.raises(ImageError, match="2 inputs can't all become -"):
        _targets("a.png", "b.png", output=Path("-"))


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with images in folders, and what is none."""
    monkeypatch.chdir(tmp_path)
    for name in ("in/a.jpg", "in/x/b.PNG", "in/x/y/c.webp", "in/.hidden/d.png"):
        _image(name)
    Path("in/notes.txt").touch()
    return tmp_path


@pytest.mark.usefixtures("tree")
def test_folders_are_repeated_below_the_output() -> None:
    assert _targets("in", output=Path("out"), recursive=True) == [
        "out/a_x4.png",
        "out/x/b_x4.png",
        "out/x/y/c_x4.png",
    ]
    assert _targets("in", recursive=True)[1] == "in/x/b_x4.png"


@pytest.mark.usefixtures("tree")
def test_a_folder_among_files_costs_itself_only() -> None:
    assert _problems("in", "in/a.jpg") == ["in: a folder; add -r to upscale the images in it", None]


@pytest.mark.usefixtures("tree")
def test_trees_with_the_same_names_are_distinguished() -> None:
    _image("also/x/b.png")
    assert _targets("in/x", "also", output=Path("out"), recursive=True) == [
        "out/b_x4.png",
        "out/y/c_x4.png",
        "out/x/b_x4.png",
    ]
    named = _targets("in", "also", output=Path("out"), recursive=True)
    assert [named[1], named[3]] == [
        "out/x/b.PNG_x4.png",
        "out/x/b.png_x4.png",
    ]
    Path("also/x/b.png").rename("also/x/b.PNG")
    named = _targets("in", "also", output=Path("out"), recursive=True)
    assert [named[1], named[3]] == [
        "out/in/x/b_x4.png",
        "out/also/x/b_x4.png",
    ]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"suffix": "-big"},
        {"suffix": "_x2"},
        {"output": Path("in/results")},
        {"output": Path("in")},
        {"extension": ".webp"},
    ],
)
@pytest.mark.usefixtures("tree")
def test_the_same_command_again_plans_the_same(options: dict[str, object]) -> None:
    first, results = _jobs("in", recursive=True, **options), list[Path]()
    _made(first, 2 if options.get("suffix") == "_x2" else 4)
    again = _jobs("in", recursive=True, on_result=lambda path, _: results.append(path), **options)
    assert again == first
    inside = options.get("output") == Path("in/results")  # that folder isn't looked into
    assert sorted(results) == ([] if inside else sorted(job.target for job in first))


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
def test_results_of_other_sizes_and_places_are_dropped_too() -> None:
    first = _jobs("in", recursive=True)
    _made(_jobs("in", recursive=True, suffix="_x1.5"), 1)
    _made(_jobs("in", recursive=True, suffix="_3840x2160"), 3)
    _made(_jobs("in", recursive=True, output=Path("in/results")))
    reported: list[tuple[Path, Path]] = []
    assert _jobs("in", recursive=True, on_result=lambda *pair: reported.append(pair)) == first
    assert (Path("in/x/y/c_3840x2160.png"), Path("in/x/y/c.webp")) in reported
    assert (Path("in/results/x/b_x4.png"), Path("in/x/b.PNG")) in reported
    assert len(reported) == 9


@pytest.mark.usefixtures("tree")
def test_what_the_shell_lists_is_treated_alike() -> None:
    _image("cat.png")
    _image("cat_x4.png", 24, 16)
    assert _targets("cat.png", "cat_x4.png") == ["cat_x4.png"]
    assert _targets("*.png") == ["cat_x4.png"]
    assert _targets("cat_x4.png") == ["cat_x4_x4.png"]  # alone, it is meant


@pytest.mark.usefixtures("tree")
def test_a_result_beside_its_source_of_another_ending_is_no_input_of_a_pattern() -> None:
    _image("phone.jpg")
    _image("phone_x4.png", 24, 16)
    _image("phone_x8.png", 48, 32)
    _image("phone_max30.png", 30, 20)
    _image("other.png", 7, 7)
    _image("other.jpg_x4.png", 9, 9)
    listed = ["other.png", "phone_x4.png", "phone_x8.png", "phone_max30.png"]
    reported: list[tuple[Path, Path]] = []
    assert _targets(
        "other.png", "other.jpg_x4.png", *listed[1:], on_result=lambda *p: reported.append(p)
    ) == [
        "other_x4.png",
        "other.jpg_x4_x4.png",
    ]
    assert {source for _, source in reported} == {Path("phone.jpg")}
    assert len(reported) == 3
    Path("other.png").unlink()
    Path("other.jpg_x4.png").unlink()
    assert _targets("p*.png") == []  # all that the pattern means are results
    assert _targets("phone_x4.png") == ["phone_x4_x4.png"]  # named alone, it is meant
    _image("phone.jpg", 7, 7)  # of other proportions
    assert _targets("phone_x4.png", "phone_x8.png") == ["phone_x4_x4.png", "phone_x8_x4.png"]


@pytest.mark.usefixtures("tree")
def test_files_of_the_system_are_no_inputs() -> None:
    _image("cat.png")
    names = ("._cat.png", "Thumbs.db", "desktop.ini")
    for name in names:
        Path(name).write_bytes(b"\0")
    assert _targets("cat.png", *names) == ["cat_x4.png"]
    assert _targets("._cat.png") == ["._cat_x4.png"]  # named alone, it is meant, and will fail


@pytest.mark.parametrize(("width", "height"), [(24, 15), (25, 16), (48, 32), (6, 6)])
@pytest.mark.usefixtures("tree")
def test_a_picture_of_other_proportions_is_no_result_and_not_replaced(
    width: int, height: int
) -> None:
    _image("cat.png")
    _image("cat_x4.png", width, height)
    problem = "cat.png: its result cat_x4.png would replace an input; use -o or --suffix"
    assert _problems("cat.png", "cat_x4.png") == [problem, None]


@pytest.mark.usefixtures("tree")
def test_pictures_that_are_only_named_alike_are_inputs() -> None:
    _image("IMG_1.png")
    for name in ("IMG_10.png", "IMG_1_x.png", "IMG_1_x4b.png", "IMG_1-2x2.png", "other_x4.png"):
        _image(name)
    assert len(_targets("*.png")) == 6


@pytest.mark.usefixtures("tree")
def test_a_result_of_a_turned_photo_is_one() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (6, 4)).save("lying.jpg", exif=exif)
    _image("lying_x4.png", 16, 24)
    assert _targets("lying*.*") == ["lying_x4.png"]


@pytest.mark.usefixtures("tree")
def test_a_photo_of_heic_is_upscaled_again_by_the_same_command() -> None:
    Path("phone").mkdir()
    Path("phone/a.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    first = _jobs("phone", recursive=True)
    _image("phone/a_x4.png")
    assert _jobs("phone", recursive=True) == first
    assert first[0].problem is None
    Path("phone/a_x4.mp4").touch()
    assert len(_jobs("phone", recursive=True)) == 2  # no photo becomes a video


@pytest.mark.parametrize("options", [{}, {"video_extension": ".mkv"}, {"output": Path("in/big")}])
@pytest.mark.usefixtures("tree")
def test_a_photo_and_a_video_of_one_name_do_not_hide_each_other(options: dict[str, object]) -> None:
    _image("in/IMG_1.jpg")
    Path("in/IMG_1.mov").touch()
    first = _jobs("in", recursive=True, **options)
    ending = options.get("video_extension", ".mov")
    made = [job.target.name for job in first if job.source.stem == "IMG_1"]
    assert made == ["IMG_1_x4.png", f"IMG_1_x4{ending}"]
    _made([job for job in first if not job.is_video])
    for job in first:
        if job.is_video:
            job.target.touch()
    assert _jobs("in", recursive=True, **options) == first
    alone = _jobs("in", recursive=True, videos=False, **options)
    assert alone == [job for job in first if not job.is_video]


@pytest.mark.usefixtures("tree")
def test_a_damaged_file_named_like_a_result_is_an_input() -> None:
    _image("cat.png")
    Path("cat_x4.png").write_text("no image")
    assert [problem is None for problem in _problems("cat*.png")] == [False, True]


@pytest.mark.usefixtures("tree")
def test_found_files_are_never_replaced() -> None:
    Path("in/x/b.PNG").rename("in/x/b.png")
    problems = _problems("in", recursive=True, suffix="")
    assert [problem is None for problem in problems] == [True, False, True]


@pytest.mark.usefixtures("tree")
def test_linked_folders_are_not_followed() -> None:
    Path("in/x/loop").symlink_to("..", target_is_directory=True)
    Path("in/x/y/loop").symlink_to(Path("in").resolve(), target_is_directory=True)
    assert len(_targets("in", recursive=True)) == 3
    assert len(_targets("in/**/*.webp")) == 1


@pytest.mark.usefixtures("tree")
def test_a_folder_that_cannot_be_listed_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("y"):
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr("os.scandir", scandir)
    problems = _problems("in", recursive=True)
    assert problems == [None, None, "in/x/y: can't be read: Permission denied"]


@pytest.mark.usefixtures("tree")
def test_patterns_that_the_shell_left_are_expanded(tree: Path) -> None:
    assert _targets("in/*.jpg", "in/**/*.webp") == ["in/a_x4.png", "in/x/y/c_x4.png"]
    assert _targets(f"{tree}/in/x/*") == [f"{tree}/in/x/b_x4.png"]
    assert _targets("in/**/*.[pP]*", "in/.h*/*.png") == ["in/x/b_x4.png", "in/.hidden/d_x4.png"]
    problems = _problems("in/*.gif", "in/a.jpg")
    assert problems[0] is not None
    assert problems[0].startswith("in/*.gif: no image in it; expected names like *.avif")
    assert problems[1] is None


def test_a_folder_without_images_is_an_error(tree: Path) -> None:
    (tree / "empty").mkdir()
    (problem,) = _problems("empty", recursive=True)
    assert problem is not None
    assert problem.startswith("empty: no image in it; expected names like")


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
    assert _targets("a.jpg", "a.png", "b.png") == ["a.jpg_x4.png", "a.png_x4.png", "b_x4.png"]


def test_each_input_may_keep_its_format() -> None:
    assert _targets("a.png", "b.TGA", "c.jfif", "d.dds", "e.mp4", extension=None) == [
        *("a_x4.png", "b_x4.tga", "c_x4.jfif", "d_x4.png", "e_x4.mp4")
    ]
    assert _targets("b.tga", extension=None, output=Path("large")) == ["large/b_x4.tga"]
    assert _targets("a.png", "f.jpg", extension=None, quality=80) == ["a_x4.png", "f_x4.jpg"]
    with pytest.raises(ImageError, match="PNG has no quality"):
        _targets("a.png", "b.tga", extension=None, quality=80)


def test_a_quality_that_the_format_lacks_is_reported_at_once() -> None:
    assert _targets("a.png", extension=".jpg", quality=80) == ["a_x4.jpg"]
    with pytest.raises(ImageError, match="PNG has no quality"):
        _targets("a.png", quality=80)


@pytest.mark.usefixtures("tree")
def test_segments_of_a_video_that_was_broken_off_are_no_inputs() -> None:
    segment = Path("in/clip_x4.mov.agsr-segments/frames-00000000-00000047.mov")
    segment.parent.mkdir(parents=True)
    segment.touch()
    for options in (["in"], ["in/**/*"], ["in/*/*.mov"]):
        jobs = _jobs(*options, recursive=True, videos=True)
        assert segment not in [job.source for job in jobs]


@pytest.mark.usefixtures("tree")
def test_patterns_take_files_only_and_without_an_ending_images_only() -> None:
    assert _targets("in/*", output=Path("out")) == ["out/a_x4.png"]
    assert _targets("in/*.*", output=Path("out")) == ["out/a_x4.png", "out/notes_x4.png"]
    (problem,) = _problems("i*", output=Path("out"))
    assert problem is not None
    assert problem.startswith("i*: no image in it")


def _doubts(*sources: str, **options: object) -> list[str | None]:
    return [job.doubt for job in _jobs(*sources, **options)]


@pytest.mark.usefixtures("tree")
def test_a_result_that_may_be_of_a_neighbour_is_doubted() -> None:
    _image("twin.jpg")
    _made(_jobs("twin.jpg"))
    assert _doubts("twin.jpg") == [None]
    _image("twin.png")
    assert _doubts("twin.png") == ["twin_x4.png may be the result of twin.jpg"]
    assert _doubts("twin.png", suffix="_new") == [None]  # there is none
    assert _doubts("twin.png", output=Path("twin_x4.png")) == [None]  # as it was named
    assert _doubts("twin.png", extension=None) == [None]  # of the JPEG file it would be twin_x4.jpg
    assert _doubts("twin.png", "twin.jpg") == [None, None]  # they get different names
    _image("twin.jpg", 7, 7)  # of other proportions than the result
    assert _doubts("twin.png") == [None]


@pytest.mark.usefixtures("tree")
def test_a_result_of_other_proportions_is_doubted() -> None:
    _image("one/same.png")
    _image("two/same.png", 9, 9)
    _made(_jobs("one/same.png", output=Path("out")))
    assert _doubts("one/same.png", output=Path("out")) == [None]
    assert _doubts("two/same.png", output=Path("out")) == [
        "out/same_x4.png has other proportions than two/same.png: the result of another input?"
    ]
    Path("out/same_x4.png").write_text("damaged")
    assert _doubts("two/same.png", output=Path("out")) == [None]


@pytest.mark.usefixtures("tree")
def test_videos_are_doubted_by_their_names() -> None:
    for name in ("clip.avi", "clip.mkv", "clip.mp4", "clip.png", "clip_x4.mkv"):
        Path(name).touch()
    assert _doubts("clip.mkv") == ["clip_x4.mkv may be the result of clip.avi"]
    Path("clip.avi").unlink()
    assert _doubts("clip.mkv") == [None]  # that of clip.mp4 would be clip_x4.mp4
    assert _doubts("clip.mkv", video_extension=".mkv") == [
        "clip_x4.mkv may be the result of clip.mp4"
    ]


@pytest.mark.usefixtures("tree")
def test_all_files_that_are_not_read_are_reported() -> None:
    _image("in/.hidden.png")
    _image("in/._a.png")
    Path("in/.notes").touch()
    Path("in/x/z.png").symlink_to("b.PNG")
    Path("again.png").symlink_to("in/x/b.PNG")
    _image("._b.png")
    found: list[Skipped] = []
    sources = ("in", "in/x/b.PNG", "again.png", "._b.png", "Thumbs.db")
    _jobs(*sources, recursive=True, on_skipped=found.append)
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
