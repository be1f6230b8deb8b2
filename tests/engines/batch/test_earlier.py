"""Results of earlier runs: which files are some, and which are about to be replaced wrongly."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from planning import jobs_of, make_image, make_results, problems_of, targets_of


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
    first, results = jobs_of("in", recursive=True, **options), list[Path]()
    make_results(first, 2 if options.get("suffix") == "_x2" else 4)
    again = jobs_of("in", recursive=True, on_result=lambda path, _: results.append(path), **options)
    assert again == first
    inside = options.get("output") == Path("in/results")  # that folder isn't looked into
    assert sorted(results) == ([] if inside else sorted(job.target for job in first))


@pytest.mark.usefixtures("tree")
def test_results_of_other_sizes_and_places_are_dropped_too() -> None:
    first = jobs_of("in", recursive=True)
    make_results(jobs_of("in", recursive=True, suffix="_x1.5"), 1)
    make_results(jobs_of("in", recursive=True, suffix="_3840x2160"), 3)
    make_results(jobs_of("in", recursive=True, output=Path("in/results")))
    reported: list[tuple[Path, Path]] = []
    assert jobs_of("in", recursive=True, on_result=lambda *pair: reported.append(pair)) == first
    assert (Path("in/x/y/c_3840x2160.png"), Path("in/x/y/c.webp")) in reported
    assert (Path("in/results/x/b_x4.png"), Path("in/x/b.PNG")) in reported
    assert len(reported) == 9


@pytest.mark.usefixtures("tree")
def test_what_the_shell_lists_is_treated_alike() -> None:
    make_image("cat.png")
    make_image("cat_x4.png", 24, 16)
    assert targets_of("cat.png", "cat_x4.png") == ["cat_x4.png"]
    assert targets_of("*.png") == ["cat_x4.png"]
    assert targets_of("cat_x4.png") == ["cat_x4_x4.png"]  # alone, it is meant


@pytest.mark.usefixtures("tree")
def test_a_result_beside_its_source_of_another_ending_is_no_input_of_a_pattern() -> None:
    make_image("phone.jpg")
    make_image("phone_x4.png", 24, 16)
    make_image("phone_x8.png", 48, 32)
    make_image("phone_max30.png", 30, 20)
    make_image("other.png", 7, 7)
    make_image("other.jpg_x4.png", 9, 9)
    listed = ["other.png", "phone_x4.png", "phone_x8.png", "phone_max30.png"]
    reported: list[tuple[Path, Path]] = []
    assert targets_of(
        "other.png", "other.jpg_x4.png", *listed[1:], on_result=lambda *p: reported.append(p)
    ) == [
        "other_x4.png",
        "other.jpg_x4_x4.png",
    ]
    assert {source for _, source in reported} == {Path("phone.jpg")}
    assert len(reported) == 3
    Path("other.png").unlink()
    Path("other.jpg_x4.png").unlink()
    assert targets_of("p*.png") == []  # all that the pattern means are results
    assert targets_of("phone_x4.png") == ["phone_x4_x4.png"]  # named alone, it is meant
    make_image("phone.jpg", 7, 7)  # of other proportions
    assert targets_of("phone_x4.png", "phone_x8.png") == ["phone_x4_x4.png", "phone_x8_x4.png"]


@pytest.mark.parametrize(("width", "height"), [(24, 15), (25, 16), (48, 32), (6, 6)])
@pytest.mark.usefixtures("tree")
def test_a_picture_of_other_proportions_is_no_result_and_not_replaced(
    width: int, height: int
) -> None:
    make_image("cat.png")
    make_image("cat_x4.png", width, height)
    problem = "cat.png: its result cat_x4.png would replace an input; use -o or --suffix"
    assert problems_of("cat.png", "cat_x4.png") == [problem, None]


@pytest.mark.usefixtures("tree")
def test_pictures_that_are_only_named_alike_are_inputs() -> None:
    make_image("IMG_1.png")
    for name in ("IMG_10.png", "IMG_1_x.png", "IMG_1_x4b.png", "IMG_1-2x2.png", "other_x4.png"):
        make_image(name)
    assert len(targets_of("*.png")) == 6


@pytest.mark.usefixtures("tree")
def test_each_header_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        make_image(f"many/{number}.png")
        make_image(f"many/{number}_x4.png", 24, 16)
    opened, read = Counter[str](), Image.open

    def counting(path: Path, **options: Any) -> Any:
        opened[path.name] += 1
        return read(path, **options)

    monkeypatch.setattr(Image, "open", counting)
    assert len(jobs_of("many", recursive=True)) == 4
    assert len(opened) == 8
    assert set(opened.values()) == {1}


@pytest.mark.usefixtures("tree")
def test_a_result_of_a_turned_photo_is_one() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (6, 4)).save("lying.jpg", exif=exif)
    make_image("lying_x4.png", 16, 24)
    assert targets_of("lying*.*") == ["lying_x4.png"]


@pytest.mark.usefixtures("tree")
def test_a_photo_of_heic_is_upscaled_again_by_the_same_command() -> None:
    Path("phone").mkdir()
    Path("phone/a.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    first = jobs_of("phone", recursive=True)
    make_image("phone/a_x4.png")
    assert jobs_of("phone", recursive=True) == first
    assert first[0].problem is None
    Path("phone/a_x4.mp4").touch()
    assert len(jobs_of("phone", recursive=True)) == 2  # no photo becomes a video


@pytest.mark.parametrize("options", [{}, {"video_extension": ".mkv"}, {"output": Path("in/big")}])
@pytest.mark.usefixtures("tree")
def test_a_photo_and_a_video_of_one_name_do_not_hide_each_other(options: dict[str, object]) -> None:
    make_image("in/IMG_1.jpg")
    Path("in/IMG_1.mov").touch()
    first = jobs_of("in", recursive=True, **options)
    ending = options.get("video_extension", ".mov")
    made = [job.target.name for job in first if job.source.stem == "IMG_1"]
    assert made == ["IMG_1_x4.png", f"IMG_1_x4{ending}"]
    make_results([job for job in first if not job.is_video])
    for job in first:
        if job.is_video:
            job.target.touch()
    assert jobs_of("in", recursive=True, **options) == first
    alone = jobs_of("in", recursive=True, videos=False, **options)
    assert alone == [job for job in first if not job.is_video]


@pytest.mark.usefixtures("tree")
def test_a_damaged_file_named_like_a_result_is_an_input() -> None:
    make_image("cat.png")
    Path("cat_x4.png").write_text("no image")
    assert [problem is None for problem in problems_of("cat*.png")] == [False, True]


def _doubts(*sources: str, **options: object) -> list[str | None]:
    return [job.doubt for job in jobs_of(*sources, **options)]


@pytest.mark.usefixtures("tree")
def test_a_result_that_may_be_of_a_neighbour_is_doubted() -> None:
    make_image("twin.jpg")
    make_results(jobs_of("twin.jpg"))
    assert _doubts("twin.jpg") == [None]
    make_image("twin.png")
    assert _doubts("twin.png") == ["twin_x4.png may be the result of twin.jpg"]
    assert _doubts("twin.png", suffix="_new") == [None]  # there is none
    assert _doubts("twin.png", output=Path("twin_x4.png")) == [None]  # as it was named
    assert _doubts("twin.png", extension=None) == [None]  # of the JPEG file it would be twin_x4.jpg
    assert _doubts("twin.png", "twin.jpg") == [None, None]  # they get different names
    make_image("twin.jpg", 7, 7)  # of other proportions than the result
    assert _doubts("twin.png") == [None]


@pytest.mark.usefixtures("tree")
def test_a_result_of_other_proportions_is_doubted() -> None:
    make_image("one/same.png")
    make_image("two/same.png", 9, 9)
    make_results(jobs_of("one/same.png", output=Path("out")))
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
