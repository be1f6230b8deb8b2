from __future__ import annotations

import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from agsr.bicubic import downscale
from agsr.datasets.pairs import load_pairs
from agsr.errors import DatasetError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for name, side in (("a", 70), ("b", 101), ("c", 20)):
        noise = random.integers(0, 256, (side, side + 30, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"{name}.png"), cv2.GaussianBlur(noise, (0, 0), 3))
    (tmp_path / "notes.txt").write_text("not an image")
    return tmp_path


def test_folder_and_tar_give_the_same_pairs(folder: Path, tmp_path: Path) -> None:
    shard = tmp_path / "shard.tar"
    with tarfile.open(shard, "w") as archive:
        for path in sorted(folder.glob("*"), reverse=True):
            if path.suffix != ".tar":
                archive.add(path, arcname=f"inner/{path.name}")
    from_folder, from_tar = load_pairs([folder], min_side=64), load_pairs([shard], min_side=64)
    assert [p.hr.shape for p in from_folder] == [(68, 100, 3), (100, 128, 3)]  # c is too small
    for a, b in zip(from_folder, from_tar, strict=True):
        assert (a.hr == b.hr).all()
        assert (a.lr == b.lr).all()
    assert (from_folder[0].lr == downscale(from_folder[0].hr)).all()


def test_channels_are_rgb(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "red.png"), np.full((64, 64, 3), (0, 0, 255), np.uint8))
    assert load_pairs([tmp_path], min_side=8)[0].hr[0, 0].tolist() == [255, 0, 0]


def test_missing_empty_and_broken_sources_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nowhere"):
        load_pairs([tmp_path / "nowhere"], min_side=8)
    with pytest.raises(DatasetError, match="no image of at least 8"):
        load_pairs([tmp_path], min_side=8)
    shard = tmp_path / "cut.tar"
    with tarfile.open(shard, "w") as archive:
        archive.add(__file__, arcname="a.png")
    shard.write_bytes(shard.read_bytes()[:700])
    with pytest.raises(DatasetError, match=r"cut\.tar"):
        load_pairs([shard], min_side=8)
    shard.unlink()
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(DatasetError, match="no image of at least 8"):
        load_pairs([tmp_path], min_side=8)
    (tmp_path / "bad.png").write_bytes(b"nonsense")
    with pytest.raises(DatasetError, match="no image of at least 8"):
        load_pairs([tmp_path], min_side=8)


def test_a_bad_file_costs_itself_only(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = load_pairs([folder], min_side=64)
    assert not caplog.messages
    (folder / "bad.png").write_bytes(b"nonsense")
    cv2.imwrite(str(folder / "dot.png"), np.zeros((1, 3, 3), np.uint8))
    assert len(load_pairs([folder], min_side=64)) == len(whole)
    *named, count = (message.partition(": ")[0] for message in caplog.messages)
    assert set(named) == {str(folder / "bad.png"), str(folder / "dot.png")}  # read in parallel
    assert count == "2 of 5 image files are unusable; skipped"
    assert f"{folder / 'dot.png'}: 3x1 is smaller than 4x4; skipped" in caplog.messages


@pytest.mark.parametrize("name", ["._a.png", ".thumbnails/a.png", "__MACOSX/._a.png", "Thumbs.db"])
def test_hidden_and_resource_files_are_no_images(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    shard = tmp_path / "shard.tar"
    with tarfile.open(shard, "w") as archive:
        archive.add(folder / "a.png", arcname="a.png")
        archive.add(folder / name, arcname=name)
    assert len(load_pairs([folder], min_side=64)) == 2
    assert len(load_pairs([shard], min_side=64)) == 1
    assert not caplog.messages


def test_tar_members_are_never_written_to_disk(tmp_path: Path) -> None:
    shard = tmp_path / "evil.tar"
    _, png = cv2.imencode(".png", np.zeros((64, 64, 3), np.uint8))
    with tarfile.open(shard, "w") as archive:
        info = tarfile.TarInfo("../escaped.png")
        info.size = len(png)
        archive.addfile(info, io.BytesIO(png.tobytes()))
    assert len(load_pairs([shard], min_side=8)) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["evil.tar"]
