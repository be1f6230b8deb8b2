"""Sets and training images on an object store: copied once, and again when they change."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import PHOTO, tiny_checkpoint
from object_store import ObjectStore
from PIL import Image

from agsr.cli import main
from agsr.datasets.pairs import load_pairs
from agsr.errors import DatasetError
from agsr.model.checkpoint import save_checkpoint
from agsr.store.address import Address
from agsr.store.mirror import fetched


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGSR_CACHE", str(tmp_path / "cache"))


def _photo(left: int) -> bytes:
    stream = io.BytesIO()
    Image.open(PHOTO).crop((left, 0, left + 32, 32)).save(stream, "png")
    return stream.getvalue()


def _gets(store: ObjectStore) -> list[str]:
    return [path for method, path in store.requests if method == "GET" and "list-type" not in path]


def test_a_set_is_copied_once(object_store: ObjectStore, tmp_path: Path) -> None:
    for number, name in enumerate(("mini/1.png", "mini/2.png", "train/large.png")):
        object_store.put(f"data/{name}", _photo(number))
    save_checkpoint(tiny_checkpoint(), tmp_path / "tiny.safetensors")
    command = ["eval", "-w", str(tmp_path / "tiny.safetensors"), "--backend", "torch", "--json"]
    remote = [*command, "--data", "s3://photos/data/", "--set", "mini"]
    object_store.requests.clear()
    first = CliRunner().invoke(main, remote)
    assert first.exit_code == 0, first.output
    assert sorted(_gets(object_store)) == ["/photos/data/mini/1.png", "/photos/data/mini/2.png"]
    object_store.requests.clear()
    second = CliRunner().invoke(main, [*command, "--set", "s3://photos/data/mini/"])
    assert len(_gets(object_store)) == 2
    object_store.requests.clear()
    third = CliRunner().invoke(main, remote)
    assert _gets(object_store) == []
    rows = [json.loads(done.stdout)["rows"] for done in (first, second, third)]
    assert rows[0] == rows[1] == rows[2]
    assert len(rows[0]) == 2


def test_training_images_follow_the_server(object_store: ObjectStore) -> None:
    source = Address.parse("s3://photos/train/")
    with pytest.raises(DatasetError, match=r"s3://photos/train: no such file or folder"):
        fetched(source)
    object_store.put("train/a.png", _photo(0))
    object_store.put("train/b.png", _photo(1))
    before = load_pairs([fetched(source)], min_side=16)
    object_store.put("train/a.png", _photo(9))
    object_store.client().delete_object(Bucket="photos", Key="train/b.png")
    object_store.requests.clear()
    (after,) = load_pairs([fetched(source)], min_side=16)
    assert _gets(object_store) == ["/photos/train/a.png"]
    assert len(before) == 2
    assert (after.hr != before[0].hr).any()
