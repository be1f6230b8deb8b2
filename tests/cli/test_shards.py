"""``agsr infer --shard``: several machines share a batch without a file done twice or never."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from conftest import PHOTO

from agsr.cli import main

NAMES = [f"{folder}{number}.png" for folder in ("", "deep/er/") for number in range(12)]


def _infer(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["infer", *arguments])


@pytest.fixture
def album(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        path = tmp_path / "album" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PHOTO, path)
    return tmp_path / "album"


def _sources(done: Result) -> list[str]:
    assert done.exit_code == 0, done.output
    return [line.partition(" → ")[0] for line in done.stdout.splitlines()]


@pytest.mark.usefixtures("album")
def test_shards_are_disjoint_and_complete() -> None:
    parts = [
        _sources(_infer("-r", "album", "-o", "out", "--shard", f"{n}/3", "-n")) for n in range(3)
    ]
    assert all(parts)
    assert sorted(name for part in parts for name in part) == sorted(
        f"album/{name}" for name in NAMES
    )


def test_a_file_keeps_its_shard_when_others_come_and_wherever_the_folder_lies(
    album: Path, tmp_path: Path
) -> None:
    before = _sources(_infer("-r", "album", "-o", "out", "--shard", "1/3", "-n"))
    shutil.copy(PHOTO, album / "00.png")
    moved = tmp_path / "mnt" / "photos"
    moved.parent.mkdir()
    album.rename(moved)
    after = _sources(_infer("-r", str(moved), "-o", "out", "--shard", "1/3", "-n"))
    there = {str(Path(path).relative_to(moved)) for path in after} - {"00.png"}
    assert there == {str(Path(path).relative_to("album")) for path in before}


@pytest.mark.usefixtures("album")
def test_the_summary_counts_the_files_of_other_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "2")
    done = _infer("-r", "album", "-o", "out", "--shard", "auto/3", "-n")
    mine = len(_sources(done))
    assert done.stderr == f"{mine} to upscale, {len(NAMES) - mine} in other shards\n"


@pytest.mark.usefixtures("album")
def test_a_shard_without_files_succeeds() -> None:
    options = ["--ext", "jpg", "--quality", "80", "-n"]  # of images, of which one shard has none
    done = [_infer("album/0.png", "-o", "out/", *options, "--shard", f"{n}/2") for n in (0, 1)]
    assert [result.exit_code for result in done] == [0, 0]
    assert sorted(len(result.stdout.splitlines()) for result in done) == [0, 1]


@pytest.mark.usefixtures("album")
@pytest.mark.parametrize("missing", ["nowhere", "nowhere/*.png"])
def test_every_shard_reports_what_is_missing(missing: str) -> None:
    for number in range(3):
        done = _infer("-r", missing, "-o", "out", "--shard", f"{number}/3")
        assert done.exit_code == 1
        assert "nowhere" in done.stderr


def test_a_shard_that_does_not_exist_is_a_wrong_request(album: Path) -> None:
    done = _infer("-r", str(album), "--shard", "3/3")
    assert done.exit_code == 2
    assert "3 shards are 0/3 to 2/3" in done.stderr
