from __future__ import annotations

from pathlib import Path

import pytest

from agsr.engines.jobs import plan
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


def test_streams_and_paths_in_suffixes_are_refused() -> None:
    with pytest.raises(ImageError, match="not supported; name files"):
        _targets("-")
    with pytest.raises(ImageError, match="not supported; name files"):
        _targets("a.png", output=Path("-"))
    with pytest.raises(ImageError, match="not of a path"):
        _targets("a.png", suffix="/../evil")
