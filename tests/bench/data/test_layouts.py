"""Where HR and LR images lie in the field's test sets, and what a bad file costs."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import PHOTO

from agsr.bench.data.sets import ImageSet, Skipped, find_set
from agsr.bench.scoring import PROTOCOL
from agsr.bicubic import crop_to_multiple, downscale
from agsr.cli import main
from agsr.errors import DatasetError

PIXELS = cv2.imread(str(PHOTO))[:48, :60]


def _save(path: Path, scale: float = 1) -> None:
    """The photo, or a marked LR image: filled with the scale's digit, so that its use shows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = PIXELS
    if scale != 1:
        height, width = (round(side / scale) for side in PIXELS.shape[:2])
        pixels = np.full((height, width, 3), round(10 * scale), np.uint8)
    cv2.imwrite(str(path), pixels)


LAYOUTS: dict[str, dict[str, float]] = {
    "SelfExSR": {
        **{f"img_00{n}_SRF_{s}_HR.png": 1 for n in (1, 2) for s in (2, 4)},
        **{f"img_00{n}_SRF_{s}_LR.png": s for n in (1, 2) for s in (2, 4)},
        "img_001_SRF_4_bicubic.png": 1,
    },
    "SelfExSR in folders": {
        **{f"image_SRF_{s}/img_001_SRF_{s}_HR.png": 1 for s in (2, 4)},
        **{f"image_SRF_{s}/img_001_SRF_{s}_LR.png": s for s in (2, 4)},
    },
    "HR and LRx4": {"HR/baby.png": 1, "LRx4/baby.png": 4, "LRx2/baby.png": 2},
    "EDSR": {"HR/baby.png": 1, "LR_bicubic/X4/babyx4.png": 4, "LR_bicubic/X2/babyx2.png": 2},
    "DIV2K beside": {
        "0801.png": 1,
        "0801x4.png": 4,
        "0801x2.png": 2,
        "0802.png": 1,
        "0802x4.png": 4,
    },
    "DIV2K": {
        "DIV2K_valid_HR/0801.png": 1,
        "DIV2K_valid_LR_bicubic/X4/0801x4.png": 4,
        "DIV2K_valid_LR_unknown/X4/0801x4.png": 4,
    },
    "BasicSR": {
        **{"GTmod12/baby.png": 1, "LRbicx4/baby.png": 4},
        **{"original/baby.png": 1, "LRbicx2/baby.png": 2},
    },
    "RCAN": {"HR/baby_HR_x4.png": 1, "LR/baby_LRBI_x4.png": 4},
    "LR without a scale": {"HR/baby.png": 1, "LR/baby.png": 4},
    "marked LR beside unmarked": {"baby.png": 1, "baby_LR.png": 4},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_given_lr_images_are_used_and_never_scored(tmp_path: Path, name: str) -> None:
    for path, scale in LAYOUTS[name].items():
        _save(tmp_path / path, scale)
    images = find_set(str(tmp_path))
    found = list(images)
    assert len(found) == (2 if name in ("SelfExSR", "DIV2K beside") else 1)
    for image in found:
        assert (image.hr[..., ::-1] == PIXELS).all()
        assert image.lr.shape == (12, 15, 3)
        assert (image.lr == 40).all()
    assert any("LR images from" in note for note in images.notes)


@pytest.mark.parametrize(
    "files",
    [
        {"HR/a.png": 1, "LR/a.png": 2},  # of another scale
        {"a.png": 1, "a_x2.png": 2},
        {"HR/a.png": 1, "LRx2/a.png": 2, "LR_bicubic/X3/ax3.png": 3},
        {"a_HR.png": 1},
        {"a.png": 1, "a_x4.png": 0.25},  # what agsr infer made of it
        {"a_SRF_2_HR.png": 1, "a_SRF_2_LR.png": 2},
    ],
)
def test_lr_images_are_made_where_those_of_this_scale_are_missing(
    tmp_path: Path, files: dict[str, float]
) -> None:
    for path, scale in files.items():
        _save(tmp_path / path, scale)
    images = find_set(str(tmp_path))
    (image,) = images
    assert not images.lr_is_given
    assert image.lr.shape == (12, 15, 3)
    assert images.notes or len(files) == 1


def test_names_that_only_look_scaled_are_images(tmp_path: Path) -> None:
    _save(tmp_path / "uni.png")
    cv2.imwrite(str(tmp_path / "unix4.png"), PIXELS[:40, :50])
    assert [image.name for image in find_set(str(tmp_path))] == ["uni", "unix4"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["LRx4/a.png"], "LRx4: a folder of LR images"),
        (["LR_bicubic/X4/ax4.png"], "X4: a folder of LR images"),
        (["a_LR.png"], "LR images only"),
        (["a_HR.png", "a_LR.png", "b.png"], r"without a mark \(b.png\)"),
        (["a_SRF_2_HR.png", "a_SRF_3_HR.png"], "HR images of several scales"),
        (["HR/a.png", "LRx4/b.png"], "no name belongs to an HR image"),
        (["HR/a.png", "LRx4/a.png", "LRx4/a_LR.png"], "several LR images of a"),
        (["HR/a.png", "LR_mild/X4/ax4.png", "LR_wild/X4/ax4.png"], "several folders of x4 LR"),
        (["A_train_HR/a.png", "A_valid_HR/a.png"], "several folders of HR images"),
    ],
)
def test_what_can_be_understood_in_two_ways_is_rejected(
    tmp_path: Path, files: list[str], message: str
) -> None:
    for path in files:
        _save(tmp_path / path, 4 if "LR" in path else 1)
    folder = tmp_path / Path(files[0]).parent if files[0].startswith("LR") else tmp_path
    with pytest.raises(DatasetError, match=message):
        find_set(str(folder))


def test_lr_images_that_do_not_belong_to_their_hr_image_cost_that_image(tmp_path: Path) -> None:
    for name in "abc":
        _save(tmp_path / "HR" / f"{name}.png")
    _save(tmp_path / "LRx4/a.png", 4)
    _save(tmp_path / "LRx4/b.png", 3)
    skipped: list[Skipped] = []
    found = find_set(str(tmp_path)).usable(skipped.append)
    assert [image.name for image in found] == ["a"]
    assert ["20x16 pixels" in skipped[0].reason, "has none" in skipped[1].reason] == [True, True]


def test_grey_and_colour_are_those_of_the_hr_image(tmp_path: Path) -> None:
    _save(tmp_path / "HR/a.png")
    cv2.imwrite(str(tmp_path / "HR/b.png"), PIXELS[..., 1])
    _save(tmp_path / "LRx4/b.png", 4)
    cv2.imwrite(str(tmp_path / "LRx4/a.png"), np.full((12, 15), 40, np.uint8))
    colour, grey = find_set(str(tmp_path))
    assert (colour.lr.shape, grey.lr.shape) == ((12, 15, 3), (12, 15))
    cv2.imwrite(str(tmp_path / "LRx4/b.png"), PIXELS[:12, :15])
    with pytest.raises(DatasetError, match="has colour"):
        list(find_set(str(tmp_path)))


def _with_bad_files(folder: Path) -> Path:
    for name in ("a.png", "b.png"):
        _save(folder / name)
    cv2.imwrite(str(folder / "dot.png"), np.zeros((1, 1, 3), np.uint8))
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:300])
    (folder / "._a.png").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    return folder


def test_eval_scores_the_rest_and_fails(tmp_path: Path) -> None:
    folder = str(_with_bad_files(tmp_path / "Mini"))
    found = CliRunner().invoke(main, ["eval", "--set", folder, "-s", "1", "--json"])
    assert found.exit_code == 1
    assert found.stderr.count("warning:") == 2
    assert "Error: 2 images can't be used" in found.stderr
    assert "._a.png" not in found.stderr
    report = json.loads(found.stdout)
    assert [row["image"] for row in report["rows"]] == ["a", "b"]
    assert [image["image"] for image in report["skipped"]] == ["cut", "dot"]
    table = CliRunner().invoke(main, ["eval", "--set", folder, "-s", "1"])
    assert "mean of 2 of 4" in table.stdout


def test_eval_of_bad_files_alone_fails_without_a_table(tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(b"\x89PNG")
    found = CliRunner().invoke(main, ["eval", "--set", str(tmp_path), "-s", "1"])
    assert (found.exit_code, found.stdout) == (1, "")


def test_eval_reports_the_protocol_of_given_lr_images(tmp_path: Path) -> None:
    _save(tmp_path / "a_HR.png")
    _save(tmp_path / "a_LR.png", 4)
    found = CliRunner().invoke(main, ["eval", "--set", str(tmp_path), "-s", "1", "--json"])
    assert found.exit_code == 0
    report = json.loads(found.stdout)
    assert [row["image"] for row in report["rows"]] == ["a_HR"]
    assert "LR as given in the set" in report["protocol"]
    assert "LR images from the files beside the HR images (a_LR.png)" in found.stderr


def test_cropping_leaves_the_given_lr_image(tmp_path: Path) -> None:
    """HR images that are no multiple of four have LR images of the floor of a quarter."""
    (tmp_path / "HR").mkdir()
    large = cv2.imread(str(PHOTO))[:51, :62]
    cv2.imwrite(str(tmp_path / "HR/a.png"), large)
    _save(tmp_path / "LRx4/a.png", 4)
    (image,) = ImageSet("Mini", (tmp_path / "HR/a.png",), (tmp_path / "LRx4/a.png",))
    assert image.hr.shape == crop_to_multiple(large).shape
    assert (image.lr == 40).all()


def _uncropped(folder: Path, size: tuple[int, int]) -> None:
    """An HR image that is no multiple of four, and its LR image of MATLAB's size, rounded up."""
    whole = cv2.imread(str(PHOTO))[: size[0], : size[1]]
    (folder / "HR").mkdir(parents=True, exist_ok=True)
    (folder / "LRx4").mkdir(exist_ok=True)
    cv2.imwrite(str(folder / "HR/a.png"), whole)
    rows, columns = (-(-side // 4) for side in size)
    lr = np.arange(rows * columns * 3, dtype=np.uint16).reshape(rows, columns, 3) % 251
    cv2.imwrite(str(folder / "LRx4/a.png"), lr.astype(np.uint8))


@pytest.mark.parametrize("size", [(49, 60), (48, 62), (51, 63), (48, 60)])
def test_lr_images_of_sizes_rounded_up_are_scored(tmp_path: Path, size: tuple[int, int]) -> None:
    _uncropped(tmp_path, size)
    (image,) = find_set(str(tmp_path))
    rows, columns = (side // 4 for side in size)
    assert image.hr.shape[:2] == (4 * rows, 4 * columns)
    expected = cv2.imread(str(tmp_path / "LRx4/a.png"))[:rows, :columns, ::-1]
    assert np.array_equal(image.lr, expected)


def test_lr_images_of_any_other_size_are_rejected(tmp_path: Path) -> None:
    _uncropped(tmp_path, (48, 60))
    cv2.imwrite(str(tmp_path / "LRx4/a.png"), np.zeros((13, 16, 3), np.uint8))
    with pytest.raises(
        DatasetError, match=r"the LR image of .* has 15x12; --lr bicubic ignores it"
    ):
        list(find_set(str(tmp_path)))


@pytest.mark.parametrize("name", LAYOUTS)
def test_given_lr_images_can_be_ignored(tmp_path: Path, name: str) -> None:
    for path, scale in LAYOUTS[name].items():
        _save(tmp_path / path, scale)
    images = find_set(str(tmp_path), use_lr=False)
    assert not images.lr_is_given
    for image in images:
        assert (image.hr[..., ::-1] == PIXELS).all()
        assert np.array_equal(image.lr, downscale(image.hr))


def test_several_folders_of_lr_images_can_be_ignored(tmp_path: Path) -> None:
    for path, scale in (("HR/a.png", 1), ("LRx4/a.png", 4), ("LR_unknown/X4/a.png", 4)):
        _save(tmp_path / path, scale)
    with pytest.raises(DatasetError, match="several folders of x4 LR"):
        find_set(str(tmp_path))
    assert len(list(find_set(str(tmp_path), use_lr=False))) == 1


@pytest.mark.parametrize("scale", [4, 1, 0.25])
def test_a_stray_name_is_neither_scored_nor_makes_the_others_unusable(
    tmp_path: Path, scale: float
) -> None:
    """A quarter of the size, the same size, or an upscaled result."""
    for name in ("img0", "img1", "img2"):
        _save(tmp_path / f"{name}.png")
    cv2.imwrite(
        str(tmp_path / "img0x4.png"),
        cv2.resize(PIXELS, None, fx=1 / scale, fy=1 / scale),
    )
    images = find_set(str(tmp_path))
    assert [image.name for image in images.usable()] == ["img0", "img1", "img2"]
    assert not images.lr_is_given
    assert "skipped (img0x4.png)" in " ".join(images.notes)


def test_eval_makes_the_lr_images_if_it_is_asked_to(tmp_path: Path) -> None:
    _save(tmp_path / "a_HR.png")
    _save(tmp_path / "a_LR.png", 4)
    options = ["eval", "--set", str(tmp_path), "-s", "1", "--json"]
    given = CliRunner().invoke(main, options)
    made = CliRunner().invoke(main, [*options, "--lr", "bicubic"])
    assert json.loads(made.stdout)["protocol"] == PROTOCOL
    assert "1 LR images beside the HR images ignored" in made.stderr
    scores = [json.loads(found.stdout)["rows"][0]["psnr"] for found in (given, made)]
    assert scores[0] < 15 < scores[1]  # the given one is of one colour


def test_lr_without_a_set_is_rejected_by_bench() -> None:
    found = CliRunner().invoke(main, ["bench", "--lr", "bicubic"])
    assert found.exit_code == 2
    assert "--lr is for a --set, and there is none" in found.stderr


@pytest.mark.data
@pytest.mark.parametrize(("lr", "expected"), [("given", 23.438), ("bicubic", 23.424)])
def test_the_lr_images_decide_the_score(data: Path, lr: str, expected: float) -> None:
    """Those of this set are of another filter, or were saved with loss: they differ by up to 14."""
    options = ["eval", "--set", str(data / "faults/selfexsr"), "-s", "1", "-b", "ort", "--json"]
    report = json.loads(CliRunner().invoke(main, [*options, "--lr", lr]).stdout)
    scores = [row["psnr"] for row in report["rows"]]
    assert np.mean(scores) == pytest.approx(expected, abs=0.003)
